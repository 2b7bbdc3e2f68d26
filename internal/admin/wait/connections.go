package wait

import (
	"fmt"
	"slices"
	"strings"

	"hacheck/internal/balancer"
	"hacheck/internal/textfmt"
)

// maxPeers is how many peers a text about connections names.
const maxPeers = 3

// WaitForConnections makes Decide wait for the connections that the kernel knows, too.
func (t *Tracker) WaitForConnections() { t.wantsNoConnections = true }

// connectionsTo returns the established connections to the local ports of a target, as the latest report has them.
func (t *Tracker) connectionsTo(target Target) (list []balancer.Connection) {
	if t.report == nil {
		return nil
	}
	isTo := func(c balancer.Connection) bool {
		return slices.ContainsFunc(t.report.Balancers, func(row balancer.ServerView) bool {
			return row.Local && row.Port == c.Port && (row.Host == c.Local || isLoopback(row.Host)) && coversRow(target.Key, row)
		})
	}
	for _, c := range t.report.Connections {
		if isTo(c) {
			list = append(list, c)
		}
	}
	return list
}

// isLoopback reports whether a server is checked at the usual loopback address. Clients then come by any address of this
// machine.
func isLoopback(host string) bool { return host == "127.0.0.1" || host == "::1" || host == "localhost" }

// ConnectionsText returns how many connections the kernel knows to the ports of a target, and from where:
// "3 connections to port 8080 from 10.0.0.7". It returns "" if there is none, or if the kernel was not asked.
func (t *Tracker) ConnectionsText(target Target) string {
	list := t.connectionsTo(target)
	if len(list) == 0 {
		if t.wantsNoConnections && t.report != nil && t.report.ConnectionsError != "" {
			return "its connections cannot be counted: " + textfmt.OneLine(t.report.ConnectionsError)
		}
		return ""
	}
	n := 0
	var ports, peers []string
	for _, c := range list {
		n += c.Count
		if port := fmt.Sprint(c.Port); !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
		if peer := textfmt.OneLine(c.Peer); peer != "" && !slices.Contains(peers, peer) {
			peers = append(peers, peer)
		}
	}
	to := "port " + ports[0]
	if len(ports) > 1 {
		to = "ports " + strings.Join(ports, ", ")
	}
	if more := len(peers) - maxPeers; more > 0 {
		peers = append(peers[:maxPeers], fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("%s to %s from %s", textfmt.Count(n, "connection"), to, strings.Join(peers, ", "))
}

// hasConnections reports whether Decide has to wait for connections to a target.
func (t *Tracker) hasConnections() bool {
	return t.wantsNoConnections && slices.ContainsFunc(t.targets, func(target Target) bool { return t.ConnectionsText(target) != "" })
}

package wait

import (
	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// Target is one service, or one instance of a service, that a command takes out or brings back.
type Target struct {
	Key   spool.Key
	Label string // for messages
}

// coversRow reports whether an override of k decides the answers to the balancer of a row.
func coversRow(k spool.Key, row balancer.Balancer) bool {
	return k.Covers(spool.Key{Service: row.Service, Host: row.Host, Port: row.Port}, row.Local)
}

// coversAgent reports whether an override of one of the targets decides what the agent answers about k.
func coversAgent(targets []Target, k spool.Key) bool {
	for _, t := range targets {
		if t.Key.Covers(k, false) {
			return true
		}
	}
	return false
}

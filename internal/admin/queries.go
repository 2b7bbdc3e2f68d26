package admin

import (
	"encoding/json"
	"errors"
	"sort"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

var errNotHacheck = errors.New("the server there is not hacheck: its /recent is not the expected JSON")

// recentService is one service that the daemon was asked about lately.
type recentService struct {
	Service string          `json:"service"`
	Last    json.RawMessage `json:"last_response"` // the answer as the daemon sent it; null if no check has finished
	answer  struct {
		Code     float64 `json:"code"`
		RemoteIP string  `json:"remote_ip"`
		TS       float64 `json:"ts"` // unix seconds
	}
}

func (s recentService) hasAnswer() bool { return string(s.Last) != "null" }

// balancers returns the daemon's report about service, for spool.All about all services. Another program may answer on
// that port, so the numbers may be anything: see balancer.Duration.
func (d daemonAddr) balancers(service string, timeout time.Duration) (*balancer.Report, error) {
	return d.report(service, "", timeout)
}

// connections is balancers with the kernel's connections.
func (d daemonAddr) connections(service string, timeout time.Duration) (*balancer.Report, error) {
	return d.report(service, "connections=1", timeout)
}

func (d daemonAddr) report(service, query string, timeout time.Duration) (*balancer.Report, error) {
	path := "/balancers"
	if service != spool.All {
		query += "&service=" + service // its letters mean nothing in a URL
	}
	if query != "" {
		path += "?" + query
	}
	body, err := d.getWithTimeout(path, timeout)
	var not *statusError
	if errors.As(err, &not) && not.code == "404" {
		return nil, errNoBalancers
	}
	if err != nil {
		return nil, err
	}
	var page struct {
		balancer.Report
		Balancers *[]balancer.ServerView  `json:"balancers"`
		Services  *[]balancer.LastRequest `json:"services"`
		Uptime    *float64                `json:"uptime"`
	}
	if err := json.Unmarshal(body, &page); err != nil || page.Balancers == nil || page.Services == nil || page.Uptime == nil {
		return nil, errNotBalancers
	}
	r := page.Report
	r.Balancers, r.Services, r.Uptime = *page.Balancers, *page.Services, *page.Uptime
	return &r, nil
}

var (
	errNoBalancers  = errors.New("the server there has no /balancers: it is older than this command, or not hacheck")
	errNotBalancers = errors.New("the server there is not hacheck: its /balancers is not the expected JSON")
)

// recent returns the services that the daemon was asked about lately, sorted by name. Another program may answer on that
// port, so it checks the whole answer.
func (d daemonAddr) recent() ([]recentService, error) {
	body, err := d.get("/recent")
	if err != nil {
		return nil, err
	}
	var page struct {
		Seen *[][2]json.RawMessage `json:"seen_services"`
	}
	if err := json.Unmarshal(body, &page); err != nil || page.Seen == nil {
		return nil, errNotHacheck
	}
	list := make([]recentService, 0, len(*page.Seen))
	for _, pair := range *page.Seen {
		s := recentService{Last: pair[1]}
		if json.Unmarshal(pair[0], &s.Service) != nil || s.hasAnswer() && json.Unmarshal(s.Last, &s.answer) != nil {
			return nil, errNotHacheck // also for half a pair, whose rest is empty
		}
		list = append(list, s)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Service < list[j].Service })
	return list, nil
}

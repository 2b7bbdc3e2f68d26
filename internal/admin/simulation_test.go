package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// simulation is a daemon with balancers: a real balancer.Table behind a real listener, and for each balancer a goroutine
// that sends requests and changes its state as HAProxy does.
type simulation struct {
	dir *spool.Dir

	mu         sync.Mutex
	table      *balancer.Table
	age        float64 // added to the uptime of the table
	addr       string
	server     *http.Server
	service    map[string]*simService
	balancer   []*simBalancer
	unrecorded uint64 // of an older daemon, which does not report unrecorded clients
	missing    []balancer.UnrecordedClient
	reports    int // answers of /balancers

	stop chan struct{}
	wg   sync.WaitGroup
}

// simService is a service with requests.
type simService struct {
	*balancer.ServiceRecord
	at time.Time
}

// simBalancer is one balancer with one server.
type simBalancer struct {
	service, node, server string
	port                  uint16
	weight                string
	open                  int  // sessions
	hold                  bool // sessions never end
	stateless             bool
	silent                bool // it sends no more requests
	gone                  bool // it falls silent after an answer with the override
	late                  bool // it gets the override only after the first report
	interval              time.Duration

	level int // HAProxy's health counter: up at simRise and above
	drain bool
}

const (
	simRise, simFall = 2, 2
	simInterval      = 50 * time.Millisecond
)

// newSim starts a daemon with one balancer for each spec, such as "node=lb1 service=web open=3 hold": see simBalancer.
func newSim(dir *spool.Dir, specs []string) (*simulation, error) {
	s := &simulation{dir: dir, table: balancer.New(), age: 1000, service: map[string]*simService{}, stop: make(chan struct{})}
	for _, spec := range specs {
		b := &simBalancer{service: "web", port: 80, weight: "1/2", interval: simInterval, level: simRise + simFall - 1}
		for _, field := range strings.Fields(spec) {
			name, value, _ := strings.Cut(field, "=")
			n, _ := strconv.Atoi(value)
			switch name {
			case "node":
				b.node, b.server = value, "be/"+value
			case "server":
				b.server = value
			case "service":
				b.service = value
			case "port":
				b.port = uint16(n)
			case "weight":
				b.weight = value
			case "open":
				b.open = n
			case "hold":
				b.hold = true
			case "down":
				b.level = 0
			case "stateless":
				b.stateless, b.interval = true, 120*time.Millisecond
			case "silent":
				b.silent = true
			case "gone":
				b.gone = true
			case "late":
				b.late = true
			case "every":
				d, err := time.ParseDuration(value)
				if err != nil {
					return nil, err
				}
				b.interval = d
			case "nobody":
			case "notkept":
				s.unrecorded = 7
			case "unrecorded":
				s.missing = append(s.missing, balancer.UnrecordedClient{Service: value, Client: "10.0.0.7", Age: 3})
			case "young":
				s.age = 0
			default:
				return nil, fmt.Errorf("unknown field %q", field)
			}
		}
		if !strings.Contains(spec, "nobody") {
			s.balancer = append(s.balancer, b)
		}
	}
	return s, s.listen("127.0.0.1:0")
}

func (s *simulation) listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.addr = l.Addr().String()
	s.server = &http.Server{Handler: http.HandlerFunc(s.answer)}
	go s.server.Serve(l)
	return nil
}

// answer serves /balancers as the daemon does.
func (s *simulation) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/balancers" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports++
	service := r.URL.Query().Get("service")
	report := s.table.Report(service)
	report.Uptime += s.age
	if report.Unrecorded = append(report.Unrecorded, s.missing...); s.unrecorded > 0 {
		report.UnrecordedRequests, report.Unrecorded = s.unrecorded, nil
	}
	for name, asked := range s.service {
		if (service == "" || name == service) && !asked.at.IsZero() {
			report.Services = append(report.Services, balancer.LastRequest{Service: name, Age: time.Since(asked.at).Seconds()})
		}
	}
	for i, row := range report.Balancers {
		for _, b := range s.balancer {
			if b.node == row.Node && b.silent {
				report.Balancers[i].Silent = true
			}
		}
	}
	json.NewEncoder(w).Encode(report)
}

// start starts the balancers and returns when the daemon knows them.
func (s *simulation) start() error {
	for _, b := range s.balancer {
		s.wg.Go(func() {
			tick := time.NewTicker(b.interval)
			defer tick.Stop()
			for {
				if s.ask(b); b.silent {
					return
				}
				select {
				case <-tick.C:
				case <-s.stop:
					return
				}
			}
		})
	}
	// A table has no event to wait for, so this polls.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.table.Report("").Balancers)
		s.mu.Unlock()
		if n >= len(s.balancer) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the daemon knows %d balancers of %d", n, len(s.balancer))
		}
	}
}

func (s *simulation) close() {
	close(s.stop)
	s.server.Close()
	s.wg.Wait()
}

// restart starts the closed daemon again, with an empty table.
func (s *simulation) restart() error {
	s.mu.Lock()
	s.table, s.age, s.service = balancer.New(), 0, map[string]*simService{}
	s.mu.Unlock()
	return s.listen(s.addr)
}

// ask sends one check of a balancer and updates its state from the answer.
func (s *simulation) ask(b *simBalancer) {
	override := spool.Ready
	for _, k := range []spool.Key{{Service: spool.All}, {Service: b.service}, {Service: b.service, Port: b.port}} {
		e, err := s.dir.Read(k)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // the directory is not there yet
		}
		override = max(override, e.State)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.late && s.reports == 0 {
		override = spool.Ready
	}
	asked := s.service[b.service]
	if asked == nil {
		asked = &simService{ServiceRecord: s.table.Service(b.service)}
		s.service[b.service] = asked
	}
	if b.silent {
		asked.Record(b.request(200, override))
		return
	}
	code := 200
	switch override {
	case spool.Drain:
		code = 404
	case spool.Down, spool.Maint:
		code = 503
	}
	asked.at = time.Now()
	asked.Record(b.request(code, override))
	switch code {
	case 200:
		b.drain = false
		b.level = min(b.level+1, simRise+simFall-1)
	case 404:
		b.drain = true
	default:
		if b.level--; b.level < simRise {
			b.level = 0
		}
	}
	if (b.drain || b.level < simRise) && b.open > 0 && !b.hold {
		b.open--
	}
	b.silent = b.gone && code != 200
}

// request returns a request with the state before its answer.
func (b *simBalancer) request(code int, override spool.State) *balancer.AnsweredRequest {
	state := "UP"
	switch {
	case b.level == 0:
		state = "DOWN"
	case b.level < simRise:
		state = fmt.Sprintf("DOWN %d/%d", b.level, simRise)
	case b.drain:
		state = "NOLB"
	case b.level < simRise+simFall-1:
		state = fmt.Sprintf("UP %d/%d", b.level-simRise+1, simFall)
	}
	r := &balancer.AnsweredRequest{
		Peer: "127.0.0.1", URL: fmt.Sprintf("/http/%s/%d/", b.service, b.port), Host: "127.0.0.1", Port: b.port, Local: true,
		Code: code, Override: override, Answered: time.Now(),
	}
	if !b.stateless {
		r.HasState, r.Node, r.Name = true, b.node, b.server
		r.State = fmt.Sprintf("%s; name=%s; node=%s; weight=%s; scur=%d/22; qcur=0", state, b.server, b.node, b.weight, b.open)
	}
	return r
}

// cmdBalancers is `balancers SPOOL SPEC...`: it starts a daemon with that spool directory at $DAEMON and $PORT, and those
// balancers.
func cmdBalancers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: balancers SPOOL SPEC...")
	}
	dir, err := spool.OpenDir(ts.MkAbs(args[0]))
	ts.Check(err)
	s, err := newSim(dir, args[1:])
	ts.Check(err)
	ts.Defer(s.close)
	ts.Check(s.start())
	_, port, err := net.SplitHostPort(s.addr)
	ts.Check(err)
	ts.Setenv("DAEMON", s.addr)
	ts.Setenv("PORT", port)
}

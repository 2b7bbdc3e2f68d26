package balancer

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestForget(t *testing.T) {
	t.Parallel()
	w := newTableOnTestClock()
	const lb2 = "10.0.0.2"
	for i := range 3 { // the rows of each balancer, the last of lb2 in an index
		w.ask(time.Second, AnsweredRequest{HasState: true, Node: "lb1", Name: "be/web1", State: "UP; node=lb1; name=be/web1"})
		w.ask(0, AnsweredRequest{HasState: true, Node: "lb1", Name: "be/web2", State: "UP; node=lb1; name=be/web2"})
		for server := range 2 * linearRows {
			w.ask(0, AnsweredRequest{Peer: lb2, HasState: true, Node: "lb2", Name: fmt.Sprint("be/", server), State: "UP"})
		}
		w.RecordAgent(lb2, "web", fmt.Sprint("up ready #", i))
	}
	asking, isAsking := errors.AsType[*AskingError](second(w.Forget("lb1")))
	if !isAsking || asking.Ago != 0 {
		t.Fatalf("%v, want that it has just asked", asking)
	}
	w.at = w.at.Add(time.Minute)
	w.ask(0, AnsweredRequest{HasState: true, Node: "lb1", Name: "be/web2", State: "UP; node=lb1; name=be/web2"})
	if n, err := w.Forget("lb1"); n != 0 || err == nil {
		t.Fatalf("forgot %d rows of a balancer of which one row is not silent", n)
	}
	for _, name := range []string{"10.0.0.3", "lb", "", "web"} {
		if n, err := w.Forget(name); n != 0 || !errors.Is(err, ErrUnknownBalancer) {
			t.Errorf("%q: %d rows, %v", name, n, err)
		}
	}
	if r := w.Report(""); len(r.Balancers) != 2+2*linearRows || len(r.Agents) != 1 {
		t.Fatalf("%d rows and %d agents before", len(r.Balancers), len(r.Agents))
	}
	// By its address, in another spelling. Its agent connection goes too.
	if n, err := w.Forget("::ffff:10.0.0.2"); err != nil || n != 2*linearRows+1 {
		t.Fatalf("%d rows, %v; want %d", n, err, 2*linearRows+1)
	}
	if r := w.Report(""); len(r.Balancers) != 2 || len(r.Agents) != 0 || r.Balancers[0].Node != "lb1" {
		t.Fatalf("%+v, want the rows of lb1", r)
	}
	// It asks again: it has a row again, with a new count.
	w.ask(time.Second, AnsweredRequest{Peer: lb2, HasState: true, Node: "lb2", Name: "be/1", State: "UP"})
	if r := w.Report("web"); len(r.Balancers) != 3 {
		t.Fatalf("%d rows, want a new one", len(r.Balancers))
	}
	w.at = w.at.Add(time.Minute)
	for name, want := range map[string]int{"lb1": 2, "lb2": 1} {
		if n, err := w.Forget(name); err != nil || n != want {
			t.Errorf("%s: %d rows, %v; want %d", name, n, err, want)
		}
	}
	if n := w.rows.Len(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}

func second[A, B any](_ A, b B) B { return b }

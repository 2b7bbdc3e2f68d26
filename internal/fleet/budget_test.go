package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text    string
		members int
		want    int // 0: the text is refused
	}{
		{"2", 8, 2},
		{"2", 2, 1}, // one of two stays
		{"9", 4, 3},
		{"3", 1, 3}, // the only member; the balancers decide
		{"25%", 8, 2},
		{"25%", 7, 1}, // rounded down
		{"25%", 3, 1}, // at least one
		{"100%", 8, 7},
		{"1%", 1000, 10},
		{"0", 8, 0},
		{"0%", 8, 0},
		{"101%", 8, 0},
		{"-1", 8, 0},
		{"+1", 8, 0},
		{"", 8, 0},
		{"%", 8, 0},
		{"two", 8, 0},
		{"99999999999999999999", 8, 0},
	} {
		b, err := parseBudget(test.text)
		var refused *RefusedError
		if got := b.limit(test.members); err == nil && (got != test.want || b.rule() != test.text) || err != nil && (test.want != 0 || !errors.As(err, &refused)) {
			t.Errorf("%q of %d members: %d (%s), %v; want %d", test.text, test.members, got, b.rule(), err, test.want)
		}
	}
	if none := (budget{}); none.limit(8) != 1 || none.rule() != "default" {
		t.Errorf("without a budget: %d, %s", none.limit(8), none.rule())
	}
}

// TestBudgetOfOtherServices: the budget "*" counts for a service without one of its own.
func TestBudgetOfOtherServices(t *testing.T) {
	t.Parallel()
	f := testFarm("web", 8)
	f.budgets["*"] = budget{Hosts: 3}
	f.budgets["api"] = budget{Hosts: 2}
	if got := f.limit("web"); got != 3 {
		t.Errorf("web: %d, want 3", got)
	}
	f.budgets["web"] = budget{Percent: 50}
	if got := f.limit("web"); got != 4 {
		t.Errorf("web: %d, want 4", got)
	}
}

// testFarm returns a farm whose hosts web1, web2 ... are present members of a service and up.
func testFarm(service string, n int) *snapshot {
	f := &snapshot{
		present: map[string]presentHost{}, states: map[string]map[string]state{service: {}}, budgets: map[string]budget{},
		permits: map[string]heldPermit{}, applied: map[string]applied{},
	}
	for i := range n {
		host := fmt.Sprintf("web%d", i+1)
		f.present[host] = presentHost{created: int64(i + 1)}
		f.states[service][host] = state{V: 1, State: stateUp}
	}
	return f
}

func TestRefusalText(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	f := testFarm("web", 8)
	f.budgets["web"] = budget{Hosts: 2}
	f.states["web"]["web3"] = state{State: "down", By: "deploy", Reason: "new kernel", Since: now.Add(-4 * time.Minute)}
	f.states["web"]["web5"] = state{State: stateUp, Since: now.Add(-3*24*time.Hour - time.Hour)}
	delete(f.present, "web5")
	f.absentSince = map[string]time.Time{"web5": now.Add(-3*24*time.Hour - time.Hour)}
	want := "web: 2 of 8 hosts are out and the budget is 2: web3 (down by deploy for 4m: new kernel), " +
		"web5 (absent for 3d; gone for good? hacheck fleet forget web5)"
	if got, _ := f.overBudget([]string{"web"}, "web1", now); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	f.absentSince = nil
	want = strings.Replace(want, "absent for 3d", "absent, last change 3d ago", 1)
	if got, _ := f.overBudget([]string{"web"}, "web1", now); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The host itself does not count, and its own failing check is no ticket.
	if got, _ := f.overBudget([]string{"web"}, "web3", now); got != "" {
		t.Errorf("web3 is refused: %s", got)
	}
	f.states["web"]["web1"] = state{State: stateFailing}
	if got, _ := f.overBudget([]string{"web"}, "web1", now); !strings.HasPrefix(got, "web: 2 of 8") {
		t.Errorf("a failing check is a ticket: %q", got)
	}
}

// TestRefusalTextIsBounded: a text names a few hosts and counts the others.
func TestRefusalTextIsBounded(t *testing.T) {
	t.Parallel()
	f := testFarm("web", 100)
	for host := range f.states["web"] {
		f.states["web"][host] = state{State: stateFailing, Reason: strings.Repeat("x", 5000)}
	}
	text, _ := f.overBudget([]string{"web"}, "web1", time.Now())
	if !strings.HasSuffix(text, " and 91 more") || len(text) > 2000 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

// TestOut lists what counts as out.
func TestOut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(f *snapshot)
		want   bool
	}{
		"up":                   {func(*snapshot) {}, false},
		"forced up":            {func(f *snapshot) { f.states["web"]["web2"] = state{State: "force-up"} }, false},
		"down":                 {func(f *snapshot) { f.states["web"]["web2"] = state{State: "down"} }, true},
		"drain":                {func(f *snapshot) { f.states["web"]["web2"] = state{State: "drain"} }, true},
		"failing":              {func(f *snapshot) { f.states["web"]["web2"] = state{State: stateFailing} }, true},
		"a word of tomorrow":   {func(f *snapshot) { f.states["web"]["web2"] = state{State: "sleeping"} }, true},
		"garbage":              {func(f *snapshot) { f.addState("web/web2", []byte("{")) }, true},
		"a newer version":      {func(f *snapshot) { f.addState("web/web2", []byte(`{"v":2,"state":"up"}`)) }, true},
		"absent":               {func(f *snapshot) { delete(f.present, "web2") }, true},
		"a permit":             {func(f *snapshot) { f.permits["web2"] = heldPermit{permit: permit{Services: []string{"web"}}} }, true},
		"a permit for api":     {func(f *snapshot) { f.permits["web2"] = heldPermit{permit: permit{Services: []string{"api"}}} }, false},
		"an unreadable permit": {func(f *snapshot) { f.permits["web2"] = heldPermit{unreadable: true} }, true},
		"a permit of a host that is no member": {func(f *snapshot) {
			delete(f.states["web"], "web2")
			f.permits["web2"] = heldPermit{permit: permit{Services: []string{"web"}}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := testFarm("web", 4)
			test.change(f)
			list := f.outOf("web", "web1")
			if got := len(list) == 1 && list[0].host == "web2"; got != test.want || len(list) > 1 {
				t.Errorf("out: %+v, want web2: %v", list, test.want)
			}
		})
	}
}

// TestLeaving: the weight of a holder counts until its balancers have it out.
func TestLeaving(t *testing.T) {
	t.Parallel()
	f := testFarm("web", 4)
	f.permits["web1"] = heldPermit{permit: permit{Services: []string{"web"}, Weights: map[string]int{"web": 100}}}
	f.permits["web2"] = heldPermit{permit: permit{Services: []string{"web", "api"}, Weights: map[string]int{"web": 3, "api": 7}}}
	f.permits["web3"] = heldPermit{permit: permit{Services: []string{"web"}, Weights: map[string]int{"web": 5}}}
	f.states["web"]["web3"] = state{State: "down", Out: true}
	if got := f.leaving([]string{"web"}, "web1"); got["web"] != 3 || len(got) != 1 {
		t.Errorf("leaving: %v, want web: 3", got)
	}
}

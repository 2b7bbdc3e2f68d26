package wait

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// SafeTimeout is how long a caller of CheckSafe gives every balancer to ask.
const SafeTimeout = 10 * time.Second

// Safety is whether targets can be taken out of service.
type Safety int

// The values of Safety.
const (
	Undecided Safety = iota // a balancer has not asked yet, or the daemon does not know all of them; a later report may decide
	Safe
	Unsafe // a balancer would have no server left, or does not report enough to know
)

// SafeResult is the answer of CheckSafe. Reason says why it is not Safe.
type SafeResult struct {
	Safety
	Reason string
}

func unsafeResult(format string, args ...any) SafeResult {
	return SafeResult{Unsafe, fmt.Sprintf(format, args...)}
}

func undecidedResult(format string, args ...any) SafeResult {
	return SafeResult{Undecided, fmt.Sprintf(format, args...)}
}

// addSendState is what to do about a balancer that sends no state.
const addSendState = `add "http-check send-state" to its backend`

// CheckSafe decides whether all targets together can be taken out of service: every balancer that asks must have
// another server left. It has if it has the server out already, or if the targets in a backend weigh less than all
// usable servers of the backend.
//
// requested is when the caller requested the report, since its command began. Only requests of balancers since then
// count.
//
// leaving has the weight of the servers of other hosts that go out as well and that balancers may still count, by
// service; nil for none. It counts in every backend of the service, because the caller cannot know which backends have
// those servers.
func CheckSafe(targets []Target, r *balancer.Report, requested time.Duration, leaving map[string]int) SafeResult {
	var rows []balancer.ServerView
	for _, row := range r.Balancers {
		if !row.Silent && slices.ContainsFunc(targets, func(t Target) bool { return coversRow(t.Key, row) }) {
			rows = append(rows, row)
		}
	}
	backends, late, result := sumWeights(rows, requested)
	if result.Safety == Unsafe {
		return result
	}
	agent := agentWithoutChecks(targets, r)
	if agent != nil && agent.Confirmed {
		return unsafeResult("%s", agentText(agent))
	}
	for _, b := range backends {
		switch others := b.leaving(leaving); {
		case b.total <= b.weight:
			return unsafeResult("%s: no other server would be left, weight %d of %d", strings.Join(b.names, " and "), b.weight, b.total)
		case b.total <= b.weight+others:
			return unsafeResult("%s: no other server would be left, weight %d of %d, and other hosts that go out weigh %d", strings.Join(b.names, " and "), b.weight, b.total, others)
		}
	}
	switch {
	case agent != nil:
		return undecidedResult("%s", agentText(agent))
	case len(late) > 0:
		return undecidedResult("%s: has not asked within %s, so it is not known which servers it has left", strings.Join(late, ", "), textfmt.Duration(SafeTimeout))
	case len(rows) == 0:
		return undecidedWithoutRows(targets, r)
	}
	for _, t := range targets {
		if !slices.ContainsFunc(rows, func(row balancer.ServerView) bool { return coversRow(t.Key, row) }) {
			return undecidedResult("%s: no balancer has asked about it within %s, so it is not known which servers they have left", t.Label, textfmt.Duration(SafeTimeout))
		}
	}
	if list := unrecorded(targets, r); len(list) > 0 {
		return undecidedResult("%s", UnrecordedText(list[0]))
	}
	if balancer.Duration(r.Uptime) < balancer.LearnTime {
		return undecidedResult("the daemon has not listened long enough to know every balancer")
	}
	return SafeResult{Safety: Safe}
}

// backend is a backend of one balancer.
type backend struct {
	weight, total int      // of the targets, and of all usable servers
	names         []string // of the targets
	services      []string // of the targets
}

// leaving returns the weight of other hosts' servers in the backend, see CheckSafe.
func (b *backend) leaving(byService map[string]int) (sum int) {
	for _, service := range b.services {
		sum += byService[service]
	}
	return sum
}

// sumWeights adds up what the rows weigh in each backend. late are the names of balancers that have not asked since the
// command began. The result is Unsafe if a balancer does not report enough.
func sumWeights(rows []balancer.ServerView, requested time.Duration) (backends []*backend, late []string, result SafeResult) {
	type key struct{ address, node, backend string }
	index := map[key]*backend{}
	for i, name := range Names(rows) {
		row := &rows[i]
		name = textfmt.OneLine(row.Service) + ": " + name
		switch {
		case row.State == "":
			return nil, nil, unsafeResult("%s sends no state, so it cannot be known which servers it has left; %s", name, addSendState)
		case balancer.Duration(row.RequestAge) > requested:
			late = append(late, name)
		case IsStateOut(row.State):
		case !IsStateUp(row.State) || row.Weight == nil || row.TotalWeight == nil:
			return nil, nil, unsafeResult("%s sends the state %q and no weights, so it cannot be known which servers it has left", name, textfmt.OneLine(row.State))
		default:
			in, _, _ := strings.Cut(row.Server, "/")
			k := key{row.Address, row.Node, in}
			b := index[k]
			if b == nil {
				b = &backend{total: *row.TotalWeight}
				index[k], backends = b, append(backends, b)
			}
			b.weight += *row.Weight
			b.total = min(b.total, *row.TotalWeight)
			b.names = append(b.names, name)
			if !slices.Contains(b.services, row.Service) {
				b.services = append(b.services, row.Service)
			}
		}
	}
	return backends, late, result
}

// undecidedWithoutRows is the result when no balancer asks about a target.
func undecidedWithoutRows(targets []Target, r *balancer.Report) SafeResult {
	for _, t := range targets {
		if age, _ := requestAge(t, r); age < balancer.LearnTime {
			return undecidedResult("no balancer that asks sends a state, so it cannot be known which servers they have left; %s", strings.Replace(addSendState, "its", "the", 1))
		}
	}
	return undecidedResult("no balancer has asked within %s, so it is not known which servers they have left", textfmt.Duration(SafeTimeout))
}

// agentWithoutChecks returns an agent connection about a target whose address sends no checks of it, nil if there is
// none. Such a balancer reports nothing. One that is not Confirmed is returned only if no other is.
func agentWithoutChecks(targets []Target, r *balancer.Report) *balancer.Agent {
	rows := map[string][]balancer.ServerView{}
	for _, row := range r.Balancers {
		rows[row.Address] = append(rows[row.Address], row)
	}
	var found *balancer.Agent
	for i, a := range r.Agents {
		key, err := spool.ParseKey(a.Service)
		if err != nil || a.Silent || !coversAgent(targets, key) {
			continue
		}
		if slices.ContainsFunc(rows[a.Address], func(row balancer.ServerView) bool { return coversRow(key, row) }) {
			continue
		}
		if found = &r.Agents[i]; a.Confirmed {
			break
		}
	}
	return found
}

func agentText(a *balancer.Agent) string {
	service := textfmt.OneLine(a.Service)
	return fmt.Sprintf("%s: %s asks the agent and sends no state, so it cannot be known which servers it has left; check %s by HTTP from there too, and %s",
		service, textfmt.OneLine(a.Address), service, addSendState)
}

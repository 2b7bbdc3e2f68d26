package wait

import (
	"slices"
	"strconv"

	"hacheck/internal/balancer"
	"hacheck/internal/cmdline"
	"hacheck/internal/spool"
)

// maxNames bounds the names that NearestName compares. Another program may answer on the daemon's port.
const maxNames = 10_000

// Unknown returns the targets that no balancer asks about. A balancer that was silent before the command does not ask.
// The result is meaningful once Decide has returned Done.
func (t *Tracker) Unknown() []Target {
	return slices.DeleteFunc(slices.Clone(t.targets), t.hasBalancer)
}

// NearestName returns the name that is most similar to the label of a target, among the names that balancers ask about in
// a report about all services. It returns "" if none is similar, or if a balancer that is silent now has asked about the
// target itself.
func NearestName(target Target, r *balancer.Report) string {
	label := target.Label
	// Two letters in the wrong order are two changes, so that even a short name may have two.
	limit := max(len(label)/2, min(2, len(label)-1))
	names := map[string]bool{}
	add := func(k spool.Key, isSilent bool) {
		name := labelLike(target, k)
		difference := len(name) - len(label)
		if isSilent && name != label || max(difference, -difference) > limit || len(names) >= maxNames {
			return
		}
		names[name] = true
	}
	for _, row := range r.Balancers {
		add(spool.Key{Service: row.Service, Host: row.Host, Port: row.Port}, row.Silent)
	}
	for _, a := range r.Agents {
		if k, err := spool.ParseKey(a.Service); err == nil {
			add(k, a.Silent || !a.Confirmed)
		}
	}
	if names[label] {
		return ""
	}
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list) // so that equally similar names give the same result each time
	return cmdline.Closest(label, list, limit)
}

// labelLike returns the label of k with as many parts as the label of a target has: svc, svc:port or svc:host:port.
func labelLike(target Target, k spool.Key) string {
	switch {
	case target.Key.Port == 0:
		return k.Service
	case target.Key.Host == "":
		return k.Service + ":" + strconv.Itoa(int(k.Port))
	}
	return k.Service + ":" + k.Host + ":" + strconv.Itoa(int(k.Port))
}

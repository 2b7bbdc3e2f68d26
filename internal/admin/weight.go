package admin

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// agentLearnTime is how long haup --weight waits for a third request of an agent connection. Before that the client may
// be a person, see balancer.Agent.
const agentLearnTime = balancer.LearnTime

// weightDocument is one weight in a JSON document.
type weightDocument struct {
	Service    string  `json:"service"`
	Host       string  `json:"host,omitempty"`
	Port       uint16  `json:"port,omitempty"`
	Weight     int     `json:"weight"` // in percent
	By         string  `json:"by,omitempty"`
	Creation   float64 `json:"creation"`             // unix seconds
	Expiration float64 `json:"expiration,omitempty"` // unix seconds; absent if it does not end by itself
}

func newWeightDocument(w spool.Weight) weightDocument {
	d := weightDocument{
		Service: w.Key.Service, Host: w.Key.Host, Port: w.Key.Port, Weight: w.Percent, By: w.By, Creation: spool.UnixSeconds(w.Created),
	}
	if !w.Expires.IsZero() {
		d.Expiration = spool.UnixSeconds(w.Expires)
	}
	return d
}

func newWeightDocuments(list []spool.Weight) []weightDocument {
	docs := make([]weightDocument, len(list))
	for i, w := range list {
		docs[i] = newWeightDocument(w)
	}
	return docs
}

// setsWeight reports whether the command sets a weight. --weight 100% ends one, as haup does without the option.
func (o *options) setsWeight() bool { return o.weight != 0 && o.weight < spool.MaxWeight }

// validateWeight checks --weight against the other options.
func (o *options) validateWeight() error {
	switch {
	case o.weight == 0:
		return nil
	case o.forceUp:
		return errors.New("--weight and --force-up exclude each other")
	case o.hasReason:
		return errors.New("option -r, --reason is for hadown; a weight has no reason")
	case o.fleet.hasScope():
		return errors.New("--weight is about this host, so it excludes --group, --host and --fleet; run it on each host")
	case !o.setsWeight() && (o.hasDuration || o.hasExpiration):
		return errors.New("--weight 100% ends the weight at once, so it excludes -e and --for")
	case o.setsWeight() && o.daemon.isNone():
		return errors.New("option -p, --port: -p '' asks no daemon, but --weight needs one")
	}
	return nil
}

// parseWeight reads the value of --weight.
func parseWeight(text string) (int, error) {
	if digits := strings.TrimSuffix(text, "%"); digits != "" && strings.Trim(digits, "0") == "" {
		return 0, errors.New("a server without new sessions is drained; use hadown --drain")
	}
	percent, err := spool.ParsePercent(text)
	if err != nil {
		return 0, fmt.Errorf("want 1%% to %d%%, as in 25%%", spool.MaxWeight)
	}
	return percent, nil
}

// checkAgents returns ExitOK if an agent connection asks about each target, so that a balancer reads its weight.
// Otherwise it prints why and returns the exit code; nothing has been written then.
func (c *command) checkAgents(targets []target) int {
	start := time.Now()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for ; ; <-tick.C {
		p := c.poll(targets, start, requestTimeout)
		if p.err != nil {
			return c.refuseUnsafe("not known", ExitDaemonUnavailable, c.unreachableText(p.err), start)
		}
		missing, mayFollow := withoutAgent(targets, p.report)
		if len(missing) == 0 {
			return ExitOK
		}
		if !mayFollow || time.Since(start) >= agentLearnTime {
			return c.refuseUnsafe("refused", ExitFailed, noAgentText(missing), start)
		}
	}
}

// withoutAgent returns the targets about which no agent connection asks. mayFollow reports that this can change soon: the
// daemon has just started, or a client has not asked three times.
func withoutAgent(targets []target, r *balancer.Report) (missing []target, mayFollow bool) {
	mayFollow = balancer.Duration(r.Uptime) < agentLearnTime
	for _, t := range targets {
		hasAgent := false
		for _, a := range r.Agents {
			if k, err := spool.ParseKey(a.Service); err != nil || a.Silent || !t.key.Covers(k, true) {
				continue
			}
			hasAgent = hasAgent || a.Confirmed
			mayFollow = mayFollow || !a.Confirmed
		}
		if !hasAgent {
			missing = append(missing, t)
		}
	}
	return missing, mayFollow
}

// noAgentText says that no balancer would read a weight, and what to configure.
func noAgentText(missing []target) string {
	labels := make([]string, len(missing))
	for i, t := range missing {
		labels[i] = t.label
	}
	return fmt.Sprintf("no agent connection asks about %s, so no balancer would read the weight; start the daemon with -A N, "+
		`or with agent_listen in its configuration, and add agent-check agent-port N agent-send "%s\n" to the server in HAProxy`,
		strings.Join(labels, ", "), missing[0].key.Name())
}

// weightsInForce returns the weights of a directory by key.
func (o overrides) weightsInForce() (map[spool.Key]spool.Weight, error) {
	if o.dir == nil {
		return nil, nil
	}
	list, err := o.dir.ListWeights()
	weights := make(map[spool.Key]spool.Weight, len(list))
	for _, w := range list {
		weights[w.Key] = w
	}
	return weights, err
}

// weigh writes the weight of t and then lifts its override. In the other order the server would get full traffic in
// between. Nothing is lifted if the weight is not in force.
func (o overrides) weigh(t target, w spool.Weight) error {
	w.Key = t.key
	err := o.dir.WriteWeight(w)
	if err != nil && !errors.Is(err, spool.ErrNotDurable) {
		return err
	}
	return cmp.Or(err, o.lift(t))
}

// liftFully lifts the override of t and ends its weight. It does so without a weight in the directory too: the daemon may
// carry one from a file system that is no longer mounted.
func (o overrides) liftFully(t target) error {
	if o.dir == nil {
		return nil
	}
	return cmp.Or(o.lift(t), o.files().EndWeight(t.key))
}

// weightsToEnd returns the weights in force that the command ends for its targets: those of a haup without a weight.
func (c *command) weightsToEnd(o overrides) (map[spool.Key]spool.Weight, error) {
	if c.opt.writesOverride() || c.opt.setsWeight() {
		return nil, nil
	}
	return o.weightsInForce()
}

// newWeight returns the weight that the command writes, without its key.
func (c *command) newWeight() spool.Weight {
	now := c.Now()
	return spool.Weight{Percent: c.opt.weight, By: c.by(), Created: now, Expires: c.opt.expiresAt(now)}
}

// printEnded prints that the weight of t has ended, unless --json prints it.
func (c *command) printEnded(t target, w spool.Weight) {
	if !c.opt.json {
		c.printf("%s: the weight of %d%% has ended, the agent says %d%%\n", t.label, w.Percent, spool.MaxWeight)
	}
}

// printWeights prints the weights in force that cover a target, and returns them. As printCovering does, it prints to
// standard error: the original format on standard output has no place for it.
func (c *command) printWeights(o overrides, targets []target) []spool.Weight {
	var list []spool.Weight
	if o.dir == nil {
		return list
	}
	var keys []spool.Key
	seen := map[spool.Key]bool{}
	for _, t := range targets {
		for _, k := range append([]spool.Key{t.key}, t.key.Above()...) {
			if !seen[k] {
				keys, seen[k] = append(keys, k), true
			}
		}
	}
	now := c.Now()
	for _, k := range keys {
		w, err := o.dir.ReadWeight(k)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			c.errorf("warning: the weight of %s cannot be read: %s", k.Name(), textfmt.OneLine(err.Error()))
		case !w.HasEnded(now):
			list = append(list, *w)
			row := weightRow(*w, now)
			c.errorf("%s has a weight of %d%%, set %s by %s, until %s", k.Name(), w.Percent, row[2], row[4], row[3])
		}
	}
	return list
}

// weightRow returns a weight as a row of a table: weight, service, since, until and by.
func weightRow(w spool.Weight, now time.Time) []string {
	row := []string{fmt.Sprintf("%d%%", w.Percent), textfmt.OneLine(w.Key.Name()), textfmt.Duration(now.Sub(w.Created)) + " ago", "haup", "-"}
	if !w.Expires.IsZero() {
		row[3] = fmt.Sprintf("%s (in %s)", localTime(w.Expires, now), textfmt.Duration(w.Expires.Sub(now)))
	}
	if w.By != "" {
		row[4] = textfmt.OneLine(w.By)
	}
	return row
}

// printWeightTable prints all weights as a table, nothing without one.
func (c *command) printWeightTable(list []spool.Weight) {
	if len(list) == 0 {
		return
	}
	rows := [][]string{{"WEIGHT", "SERVICE", "SINCE", "UNTIL", "BY"}}
	for _, w := range list {
		rows = append(rows, weightRow(w, c.Now()))
	}
	c.printf("\nWeights, which balancers read from the agent:\n%s", textfmt.Table(rows))
}

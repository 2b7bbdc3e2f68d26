package admin

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// override is the state of one key in a JSON document, with or without an override.
type override struct {
	Service    string   `json:"service"`
	Host       string   `json:"host,omitempty"`
	Port       uint16   `json:"port,omitempty"`
	State      string   `json:"state"` // up, force-up, drain, down, maint; unknown if it cannot be read
	Reason     string   `json:"reason,omitempty"`
	By         string   `json:"by,omitempty"`         // who has set it
	Scope      string   `json:"scope,omitempty"`      // of an override of the fleet: all, group:NAME or host:NAME
	Creation   *float64 `json:"creation,omitempty"`   // unix seconds; absent if not known
	Expiration *float64 `json:"expiration,omitempty"` // unix seconds; absent if it does not end by itself
	UntilBoot  bool     `json:"until_boot,omitempty"` // it ends with the next start of the machine
}

func newOverride(e spool.Entry) override {
	d := override{Service: e.Key.Service, Host: e.Key.Host, Port: e.Key.Port, State: e.State.Word(), Reason: e.Reason, By: e.By, Scope: e.Scope, UntilBoot: e.Boot != ""}
	if !e.Created.IsZero() {
		at := spool.UnixSeconds(e.Created)
		d.Creation = &at
	}
	if !e.Expires.IsZero() {
		at := spool.UnixSeconds(e.Expires)
		d.Expiration = &at
	}
	return d
}

// overrideOf returns the override of a target, with the state "unknown" if it cannot be read.
func (o overrides) overrideOf(t target) override {
	e, err := o.read(t)
	d := newOverride(e)
	if err != nil {
		d.State = "unknown"
	}
	return d
}

// printJSON prints one JSON document on a line.
func (c *command) printJSON(v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a terminal shows it, not a browser
	err := enc.Encode(v)
	if err == nil {
		_, err = c.out.Write(textfmt.EscapeJSON(b.Bytes()))
	}
	if err != nil {
		c.errorf("write JSON: %v", err)
	}
}

// printLine prints one service as the original tools do, with tabs between the fields and the reason on one line.
func (c *command) printLine(label string, e spool.Entry) {
	if !e.State.TakesOut() {
		c.printf("UP\t%s\n", textfmt.OneLine(e.Key.Service))
		return
	}
	until := "inf"
	if !e.Expires.IsZero() {
		until = strconv.FormatFloat(spool.UnixSeconds(e.Expires), 'f', 6, 64)
	}
	c.printf("DOWN\t%s\t%s\t%s\n", until, label, e.ReasonText())
}

// status is hastatus with names: it prints the override of each target, without wider ones, as the original tools do. An
// override of the fleet counts as one in the spool.
func (c *command) status(targets []target) int {
	o, err := c.openToRead()
	if err != nil {
		c.errorf("%s", c.explainSpoolError(err))
		return ExitFailed
	}
	defer o.close()
	c.warnMissing(o)
	o.fleet = c.fleetEntries()

	code := ExitOK
	var results []serviceResult
	covering := []override{}
	o.readAll(func(o overrides) {
		for _, t := range targets {
			e, err := o.read(t)
			result := serviceResult{override: newOverride(e)}
			switch {
			case err != nil:
				code = ExitFailed
				result.State, result.Error = "unknown", c.explainSpoolError(err)
				c.errorf("%s: %s", t.label, result.Error)
			case !c.opt.json:
				c.printLine(t.line(), e)
			}
			if e.State.TakesOut() {
				code = ExitFailed
			}
			results = append(results, result)
		}
		covering = c.printCovering(o, targets)
	})
	weights := c.printWeights(o, targets)
	if c.opt.json {
		c.printJSON(struct {
			Services []serviceResult  `json:"services"`
			Covering []override       `json:"covering"` // wider overrides that take a listed service out
			Weights  []weightDocument `json:"weights,omitempty"`
		}{results, covering, newWeightDocuments(weights)})
	}
	_ = c.out.Flush() // the writer keeps an error, see printf
	c.warnWrongDirectory()
	return code
}

// printCovering prints the wider overrides that take a target out, and returns them. It prints to standard error, where
// a person sees them and scripts do not.
func (c *command) printCovering(o overrides, targets []target) []override {
	printed := map[spool.Key]bool{}
	for _, t := range targets {
		printed[t.key] = true
	}
	wider := []spool.Key{{Service: spool.All}}
	for _, t := range targets {
		wider = append(wider, t.key.Above()...)
	}
	covering := []override{}
	for _, k := range wider {
		if printed[k] {
			continue
		}
		printed[k] = true
		e, err := o.read(target{key: k})
		if err != nil {
			c.errorf("%s: %s", k.Service, c.explainSpoolError(err))
			continue
		}
		if !e.State.TakesOut() {
			continue
		}
		covering = append(covering, newOverride(e))
		covers := "every service on this host"
		if k.Service != spool.All {
			covers = "every instance of it"
		}
		reason := e.ReasonText()
		if reason != "" {
			reason = ": " + reason
		}
		c.errorf("%s is %s, and with it %s%s", k.Service, e.State.Word(), covers, reason)
	}
	return covering
}

// warnMissing prints that the spool directory does not exist. That is normal before the first hadown, but may also mean
// a wrong --spool-root.
func (c *command) warnMissing(o overrides) {
	if o.dir == nil {
		c.errorf("%s does not exist yet, so nothing is down", textfmt.OneLine(c.opt.spoolRoot))
	}
}

// showDowned is hashowdowned: it prints every override that takes something out, sorted by name.
func (c *command) showDowned() int {
	o, err := c.openToRead()
	if err != nil {
		c.errorf("%s", c.explainSpoolError(err))
		return ExitFailed
	}
	defer o.close()
	c.warnMissing(o)
	list, err := o.list()
	if err != nil {
		c.errorf("%s", c.explainSpoolError(err))
		return ExitFailed
	}
	list = slices.DeleteFunc(append(list, c.fleetEntries()...), func(e spool.Entry) bool { return !e.State.TakesOut() })
	spool.SortByName(list)
	if c.opt.json {
		c.printJSON(map[string]any{"overrides": newOverrides(list)})
	} else {
		for _, e := range list {
			c.printLine(textfmt.OneLine(e.Key.Label()), e)
		}
	}
	_ = c.out.Flush() // the writer keeps an error, see printf
	c.warnWrongDirectory()
	return ExitOK
}

// newOverrides returns the overrides of a JSON document.
func newOverrides(list []spool.Entry) []override {
	all := make([]override, len(list))
	for i, e := range list {
		all[i] = newOverride(e)
	}
	return all
}

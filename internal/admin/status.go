package admin

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// override is one override, or the lack of one, in a JSON document.
type override struct {
	Service    string   `json:"service"`
	Host       string   `json:"host,omitempty"`
	Port       uint16   `json:"port,omitempty"`
	State      string   `json:"state"` // up, force-up, drain, down, maint; unknown when it cannot be read
	Reason     string   `json:"reason,omitempty"`
	Creation   *float64 `json:"creation,omitempty"`   // unix seconds; absent when not known
	Expiration *float64 `json:"expiration,omitempty"` // unix seconds; absent when it does not end by itself
}

func describe(e spool.Entry) override {
	d := override{Service: e.Key.Service, Host: e.Key.Host, Port: e.Key.Port, State: word(e.State), Reason: e.Reason}
	if !e.Created.IsZero() {
		at := unix(e.Created)
		d.Creation = &at
	}
	if !e.Expires.IsZero() {
		at := unix(e.Expires)
		d.Expiration = &at
	}
	return d
}

// describe is what is said about a target now.
func (o overrides) describe(t target) override {
	e, err := o.read(t)
	d := describe(e)
	if err != nil {
		d.State = "unknown"
	}
	return d
}

// document prints the one JSON document of --json.
func (c *command) document(v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // reasons are read by people, not by browsers
	err := enc.Encode(v)
	if err == nil {
		_, err = c.out.Write(textfmt.EscapeJSON(b.Bytes()))
	}
	if err != nil {
		c.errorf("write JSON: %v", err)
	}
}

// line prints one service as the original does: tabs between, a reason that stays on its line.
func (c *command) line(label string, e spool.Entry) {
	if !isDown(e.State) {
		c.printf("UP\t%s\n", textfmt.OneLine(e.Key.Service))
		return
	}
	until := "inf"
	if !e.Expires.IsZero() {
		until = strconv.FormatFloat(unix(e.Expires), 'f', 6, 64)
	}
	c.printf("DOWN\t%s\t%s\t%s\n", until, label, textfmt.OneLine(e.Reason))
}

// status is hastatus with names: what is said about each of them and about nothing wider, as in the
// original. What covers them from above is said on standard error, where it cannot disturb a script
// and a person does not miss it.
func (c *command) status(targets []target) int {
	o, err := c.openToRead()
	if err != nil {
		c.errorf("%s", c.explain(err))
		return ExitFailed
	}
	defer o.close()
	c.noteMissing(o)

	code := ExitOK
	doc := struct {
		Services []outcome  `json:"services"`
		Covering []override `json:"covering"` // wider overrides that are down and cover a service listed
	}{Covering: []override{}}
	var wider []target
	cover := func(service string) {
		named := func(t target) bool { return t.key == spool.Key{Service: service} }
		if !slices.ContainsFunc(targets, named) && !slices.ContainsFunc(wider, named) {
			wider = append(wider, target{key: spool.Key{Service: service}})
		}
	}
	cover(spool.All)
	for _, t := range targets {
		e, err := o.read(t)
		if err != nil {
			why := c.explain(err)
			c.errorf("%s: %s", t.label, why)
			unknown := describe(e)
			unknown.State = "unknown"
			doc.Services = append(doc.Services, outcome{unknown, why})
			code = ExitFailed
			continue
		}
		if isDown(e.State) {
			code = ExitFailed
		}
		if c.opt.json {
			doc.Services = append(doc.Services, outcome{override: describe(e)})
		} else {
			c.line(t.label, e)
		}
		if t.key.Port != 0 {
			cover(t.key.Service)
		}
	}
	for _, t := range wider {
		e, err := o.read(t)
		if err != nil {
			c.errorf("%s: %s", t.key.Service, c.explain(err))
			continue
		}
		if !isDown(e.State) {
			continue
		}
		doc.Covering = append(doc.Covering, describe(e))
		covers := "every service on this host"
		if t.key.Service != spool.All {
			covers = "every instance of it"
		}
		reason := textfmt.OneLine(e.Reason)
		if reason != "" {
			reason = ": " + reason
		}
		c.errorf("%s is %s, and with it %s%s", t.key.Service, word(e.State), covers, reason)
	}
	if c.opt.json {
		c.document(doc)
	}
	_ = c.out.Flush() // an error stays in the writer, see printf
	c.warnNotObeyed()
	return code
}

// noteMissing says that there is no directory to read. That is no error before the first hadown, but
// it is also what a wrong --spool-root looks like.
func (c *command) noteMissing(o overrides) {
	if o.dir == nil {
		c.errorf("%s does not exist yet, so nothing is down", textfmt.OneLine(c.opt.spoolRoot))
	}
}

// showDowned is hashowdowned: every override that takes something out, sorted by name.
func (c *command) showDowned() int {
	o, err := c.openToRead()
	if err != nil {
		c.errorf("%s", c.explain(err))
		return ExitFailed
	}
	defer o.close()
	c.noteMissing(o)
	list, err := o.list()
	if err != nil {
		c.errorf("%s", c.explain(err))
		return ExitFailed
	}
	list = slices.DeleteFunc(list, func(e spool.Entry) bool { return !isDown(e.State) })
	if c.opt.json {
		c.document(map[string]any{"overrides": describeAll(list)})
	} else {
		for _, e := range list {
			c.line(label(e.Key), e)
		}
	}
	_ = c.out.Flush() // an error stays in the writer, see printf
	c.warnNotObeyed()
	return ExitOK
}

func describeAll(list []spool.Entry) []override {
	all := make([]override, len(list))
	for i, e := range list {
		all[i] = describe(e)
	}
	return all
}

package runner

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/textfmt"
)

// printer writes reports in the form that --output names.
type printer struct {
	o   *options
	out *bufio.Writer
}

// print writes the report. Text that came line by line with -U is not repeated.
func (p *printer) print(rep *report) error {
	if !p.o.unbuffered || p.o.output != outputText {
		slices.SortStableFunc(rep.results, compareResults)
	}
	switch p.o.output {
	case outputJSON:
		return p.json(rep)
	case outputJUnit:
		return p.junit(rep)
	case outputNagios:
		p.nagios(rep)
	default:
		p.text(rep)
	}
	return nil
}

// compareResults is conn-check's: what failed, what passed, what was skipped, each by name.
func compareResults(a, b stepResult) int {
	rank := map[status]int{failed: 0, passed: 1, skipped: 2}
	return cmp.Or(cmp.Compare(rank[a.status], rank[b.status]), strings.Compare(a.name, b.name), strings.Compare(a.message, b.message))
}

func (p *printer) text(rep *report) {
	if errors.Is(rep.stopCause, errMaxTimeout) {
		_, _ = fmt.Fprintf(p.out, "Maximum timeout reached: %ss\n", pythonFloat(rep.maxTimeout.Seconds()))
	}
	if p.o.unbuffered && !rep.dryRun {
		return
	}
	started := rep.started
	slices.SortStableFunc(started, compareResults)
	for _, o := range rep.results {
		if o.status != failed && started != nil {
			p.printStarted(started)
			started = nil
		}
		p.printResult(o)
	}
	p.printStarted(started)
}

// pythonFloat writes a number as conn-check does, 10 as "10.0".
func pythonFloat(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// printEvent prints what -U wants to see at once.
func (p *printer) printEvent(e event) {
	if e.started {
		p.printStarted([]stepResult{e.stepResult})
		return
	}
	p.printResult(e.stepResult)
}

func (p *printer) printStarted(list []stepResult) {
	if !p.o.verbose {
		return
	}
	for _, o := range list {
		info := ""
		if o.info != "" {
			info = " (" + clean(o.info, maxName) + ")"
		}
		_, _ = fmt.Fprintf(p.out, "%sStarting %s%s...\n", p.timestamp(o), o.name, info)
	}
}

// timestamp is how long after the start of the run something happened, and nothing without -d.
func (p *printer) timestamp(o stepResult) string {
	if !p.o.duration {
		return ""
	}
	return fmt.Sprintf("%.3f: ", o.at.Seconds())
}

func (p *printer) printResult(o stepResult) {
	took := ""
	if p.o.duration {
		took = fmt.Sprintf(": (%.3f ms)", float64(o.took)/float64(time.Millisecond))
	}
	switch o.status {
	case passed:
		_, _ = fmt.Fprintf(p.out, "%s%s OK%s\n", p.timestamp(o), o.name, took)
	case skipped:
		_, _ = fmt.Fprintf(p.out, "%sSKIPPED: %s\n", p.timestamp(o), o.name)
	case failed:
		_, _ = fmt.Fprintf(p.out, "%s%s FAILED%s - %s\n", p.timestamp(o), o.name, took, o.message)
		if p.o.tracebacks {
			p.printErrors(o)
		}
	}
}

// printErrors prints the chain of errors that a failure comes from, the outermost first.
func (p *printer) printErrors(o stepResult) {
	_, _ = fmt.Fprintf(p.out, "  reason: %s\n", o.reason)
	const longest = 20
	err := o.err
	for range longest {
		if err == nil {
			return
		}
		_, _ = fmt.Fprintf(p.out, "  %T: %s\n", err, clean(err.Error(), maxMessage))
		err = errors.Unwrap(err)
	}
}

// jsonReport is the JSON document. Durations are in seconds.
type jsonReport struct {
	Status  string       `json:"status"` // ok, failed, dry-run
	Total   int          `json:"total"`
	OK      int          `json:"ok"`
	Failed  int          `json:"failed"`
	Skipped int          `json:"skipped"`
	Seconds float64      `json:"seconds"`
	Rounds  int          `json:"rounds,omitempty"` // none in a dry run
	Ended   string       `json:"ended,omitempty"`  // why the run ended early
	Results []jsonResult `json:"results"`
}

type jsonResult struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Check   string   `json:"check"` // the steps of one check share it
	Status  string   `json:"status"`
	Message string   `json:"message,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Seconds float64  `json:"seconds"`
	Tags    []string `json:"tags,omitempty"`
}

// inSeconds cuts at microseconds: what lies below is noise.
func inSeconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }

func (rep *report) summary() jsonReport {
	s := jsonReport{
		Status: "ok", Total: len(rep.results), OK: rep.count(passed), Failed: rep.count(failed), Skipped: rep.count(skipped),
		Seconds: inSeconds(rep.took), Rounds: rep.rounds, Results: []jsonResult{},
	}
	switch {
	case rep.dryRun:
		s.Status = "dry-run"
	case s.Failed > 0 || rep.stopCause != nil:
		s.Status = "failed"
	}
	if rep.stopCause != nil {
		s.Ended = rep.stopCause.Error()
	}
	for _, o := range rep.results {
		r := jsonResult{
			Name: o.name, Type: o.job.Type, Check: clean(o.job.Name, maxName), Status: o.status.String(),
			Message: o.message, Seconds: inSeconds(o.took), Tags: o.job.Tags,
		}
		if o.status == failed {
			r.Reason = o.reason.String()
		}
		s.Results = append(s.Results, r)
	}
	return s
}

func (p *printer) json(rep *report) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(rep.summary()); err != nil {
		return err
	}
	_, err := p.out.Write(textfmt.EscapeJSON(b.Bytes()))
	return err
}

// The elements of a JUnit report as the readers in use agree on them.
type (
	junitSuites struct {
		XMLName xml.Name   `xml:"testsuites"`
		Suite   junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
		Skipped *struct{}     `xml:"skipped"`
	}
	junitFailure struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
	}
)

func (p *printer) junit(rep *report) error {
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 6, 64) }
	s := junitSuite{
		Name: "hacheck run", Tests: len(rep.results), Failures: rep.count(failed), Skipped: rep.count(skipped), Time: seconds(rep.took),
	}
	for _, o := range rep.results {
		c := junitCase{Class: o.job.Type, Name: o.name, Time: seconds(o.took)}
		switch o.status {
		case failed:
			c.Failure = &junitFailure{o.reason.String(), o.message}
		case skipped:
			c.Skipped = &struct{}{}
		case passed:
		}
		s.Cases = append(s.Cases, c)
	}
	if _, err := io.WriteString(p.out, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(p.out)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Suite: s}); err != nil {
		return err
	}
	_, err := io.WriteString(p.out, "\n")
	return err
}

// nagios writes a plugin's output: one line with the status, what failed and the figures, then a line for
// each step that failed.
func (p *printer) nagios(rep *report) {
	const most = 3 // names in the first line, which is what a pager shows
	ok, bad, rest := rep.count(passed), rep.count(failed), rep.count(skipped)
	line := fmt.Sprintf("OK - %d of %d passed", ok, len(rep.results))
	var all, names []string
	for _, o := range rep.results {
		if o.status == failed {
			all = append(all, nagiosText(o.name+" FAILED - "+o.message))
			names = append(names, nagiosText(o.name+" ("+o.message+")"))
		}
	}
	switch {
	case rep.dryRun:
		line = fmt.Sprintf("OK - dry run, %d not checked", rest)
	case len(rep.results) == 0:
		line = "OK - nothing to check"
	case bad > 0:
		line = fmt.Sprintf("CRITICAL - %d of %d failed: %s", bad, len(rep.results), strings.Join(names[:min(most, bad)], ", "))
		if bad > most {
			line += fmt.Sprintf(" and %d more", bad-most)
		}
	}
	_, _ = fmt.Fprintf(p.out, "HACHECK %s | time=%.6fs;;;0 ok=%d;;;0 failed=%d;;;0 skipped=%d;;;0\n", line, rep.took.Seconds(), ok, bad, rest)
	for _, l := range all {
		_, _ = fmt.Fprintln(p.out, l)
	}
}

// nagiosText replaces the character that separates text and figures.
func nagiosText(s string) string { return strings.ReplaceAll(clean(s, maxName+maxMessage), "|", "/") }

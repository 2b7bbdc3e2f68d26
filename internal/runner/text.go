package runner

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
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

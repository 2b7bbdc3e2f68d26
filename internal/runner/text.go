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

	"hacheck/internal/textfmt"
)

// printer writes reports in the format of --output.
type printer struct {
	options *options
	out     *bufio.Writer
}

// print writes rep. It does not repeat the lines that -U has already printed.
func (p *printer) print(rep *report) error {
	if !p.options.unbuffered || p.options.output != outputText {
		slices.SortStableFunc(rep.results, compareResults)
	}
	switch p.options.output {
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

// compareResults orders results as conn-check does: failed, passed, skipped, each by name.
func compareResults(a, b stepResult) int {
	rank := map[status]int{failed: 0, passed: 1, skipped: 2}
	return cmp.Or(cmp.Compare(rank[a.status], rank[b.status]), strings.Compare(a.name, b.name), strings.Compare(a.message, b.message))
}

func (p *printer) text(rep *report) {
	if errors.Is(rep.stopCause, errMaxTimeout) {
		_, _ = fmt.Fprintf(p.out, "Maximum timeout reached: %ss\n", pythonFloat(rep.maxTimeout.Seconds()))
	}
	if p.options.unbuffered && !rep.dryRun {
		return
	}
	started := rep.started // printed after the failed steps
	slices.SortStableFunc(started, compareResults)
	for _, r := range rep.results {
		if r.status != failed && started != nil {
			p.printStarted(started)
			started = nil
		}
		p.printResult(r)
	}
	p.printStarted(started)
}

// pythonFloat formats a number as conn-check does: 10 as "10.0".
func pythonFloat(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// printEvent prints e in the format of -U.
func (p *printer) printEvent(e event) {
	if e.started {
		p.printStarted([]stepResult{e.stepResult})
		return
	}
	p.printResult(e.stepResult)
}

// printStarted prints with -v that steps have started.
func (p *printer) printStarted(list []stepResult) {
	if !p.options.verbose {
		return
	}
	for _, r := range list {
		info := ""
		if r.info != "" {
			info = " (" + textfmt.Excerpt(r.info, maxName) + ")"
		}
		_, _ = fmt.Fprintf(p.out, "%sStarting %s%s...\n", p.timestamp(r), r.name, info)
	}
}

// timestamp returns with -d the seconds since the start of the run, else "".
func (p *printer) timestamp(r stepResult) string {
	if !p.options.duration {
		return ""
	}
	return fmt.Sprintf("%.3f: ", r.at.Seconds())
}

func (p *printer) printResult(r stepResult) {
	took := ""
	if p.options.duration {
		took = fmt.Sprintf(": (%.3f ms)", float64(r.took)/float64(time.Millisecond))
	}
	switch r.status {
	case passed:
		_, _ = fmt.Fprintf(p.out, "%s%s OK%s\n", p.timestamp(r), r.name, took)
	case skipped:
		_, _ = fmt.Fprintf(p.out, "%sSKIPPED: %s\n", p.timestamp(r), r.name)
	case failed:
		_, _ = fmt.Fprintf(p.out, "%s%s FAILED%s - %s\n", p.timestamp(r), r.name, took, r.message)
		if p.options.tracebacks {
			p.printErrors(r)
		}
	}
}

// printErrors prints the error chain behind a failure, the outermost error first.
func (p *printer) printErrors(r stepResult) {
	_, _ = fmt.Fprintf(p.out, "  reason: %s\n", r.reason)
	const maxErrors = 20
	err := r.err
	for range maxErrors {
		if err == nil {
			return
		}
		_, _ = fmt.Fprintf(p.out, "  %T: %s\n", err, textfmt.Excerpt(err.Error(), maxMessage))
		err = errors.Unwrap(err)
	}
}

package runner

import (
	"fmt"
	"strings"

	"hacheck/internal/textfmt"
)

// nagios writes the output of a Nagios plugin: one line with the status, the failed steps and the performance data,
// then a line for each failed step.
func (p *printer) nagios(rep *report) {
	const maxNames = 3 // in the first line, which pagers show
	oks, failures, skips := rep.count(passed), rep.count(failed), rep.count(skipped)
	line := fmt.Sprintf("OK - %d of %d passed", oks, len(rep.results))
	var lines, names []string
	for _, r := range rep.results {
		if r.status == failed {
			lines = append(lines, nagiosText(r.name+" FAILED - "+r.message))
			names = append(names, nagiosText(r.name+" ("+r.message+")"))
		}
	}
	switch {
	case rep.dryRun:
		line = fmt.Sprintf("OK - dry run, %d not checked", skips)
	case len(rep.results) == 0:
		line = "OK - nothing to check"
	case failures > 0:
		line = fmt.Sprintf("CRITICAL - %d of %d failed: %s", failures, len(rep.results), strings.Join(names[:min(maxNames, failures)], ", "))
		if failures > maxNames {
			line += fmt.Sprintf(" and %d more", failures-maxNames)
		}
	}
	_, _ = fmt.Fprintf(p.out, "HACHECK %s | time=%.6fs;;;0 ok=%d;;;0 failed=%d;;;0 skipped=%d;;;0\n", line, rep.took.Seconds(), oks, failures, skips)
	for _, l := range lines {
		_, _ = fmt.Fprintln(p.out, l)
	}
}

// nagiosText makes s fit for the first line: "|" would begin the performance data.
func nagiosText(s string) string {
	return strings.ReplaceAll(textfmt.Excerpt(s, maxName+maxMessage), "|", "/")
}

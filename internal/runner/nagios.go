package runner

import (
	"fmt"
	"strings"
)

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

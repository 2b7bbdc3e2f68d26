package runner

import (
	"bytes"
	"encoding/json"
	"time"

	"hacheck/internal/textfmt"
)

// jsonReport is the document of --output json. Durations are in seconds.
type jsonReport struct {
	Status  string       `json:"status"` // ok, failed, dry-run
	Total   int          `json:"total"`
	OK      int          `json:"ok"`
	Failed  int          `json:"failed"`
	Skipped int          `json:"skipped"`
	Seconds float64      `json:"seconds"`
	Rounds  int          `json:"rounds,omitempty"` // 0 in a dry run
	Ended   string       `json:"ended,omitempty"`  // why the run ended early
	Results []jsonResult `json:"results"`
}

type jsonResult struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Check   string   `json:"check"` // the same for all steps of a check
	Status  string   `json:"status"`
	Message string   `json:"message,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Seconds float64  `json:"seconds"`
	Tags    []string `json:"tags,omitempty"`
}

// seconds returns d in seconds, cut to microseconds.
func seconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }

func (rep *report) summary() jsonReport {
	s := jsonReport{
		Status: "ok", Total: len(rep.results), OK: rep.count(passed), Failed: rep.count(failed), Skipped: rep.count(skipped),
		Seconds: seconds(rep.took), Rounds: rep.rounds, Results: []jsonResult{},
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
	for _, res := range rep.results {
		r := jsonResult{
			Name: res.name, Type: res.job.Type, Check: textfmt.Excerpt(res.job.Name, maxName), Status: res.status.String(),
			Message: res.message, Seconds: seconds(res.took), Tags: res.job.Tags,
		}
		if res.status == failed {
			r.Reason = res.reason.String()
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

package runner

import (
	"bytes"
	"encoding/json"
	"time"

	"hacheck/internal/textfmt"
)

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

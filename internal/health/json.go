package health

import (
	"encoding/json"
	"net/http"

	"hacheck/internal/check"
	"hacheck/internal/textfmt"
)

// verdictJSON is a verdict for clients that accept JSON: on the configured checks of a service, or on a check that found
// more than a code.
type verdictJSON struct {
	Healthy bool        `json:"healthy"`
	State   string      `json:"state,omitempty"`  // of the override: up, drain, down or maint
	Reason  string      `json:"reason,omitempty"` // why the service is not healthy
	Found   foundJSON   `json:"found,omitempty"`
	Checks  []checkJSON `json:"checks,omitempty"`
}

type checkJSON struct {
	Name    string    `json:"name"`
	Healthy bool      `json:"healthy"`
	Message string    `json:"message"`
	Seconds float64   `json:"seconds"`
	Found   foundJSON `json:"found,omitempty"`
}

// foundJSON is what a check found: the role of a database, its lag.
type foundJSON map[string]any

func newFoundJSON(fields []check.ResultField) foundJSON {
	found := make(foundJSON, len(fields))
	for _, f := range fields {
		found[f.Name] = f.Value
	}
	return found
}

// JSON returns v as a document with the result and the duration of each check.
func (v *Verdict) JSON() []byte {
	doc := verdictJSON{Healthy: v.Result.Code == http.StatusOK, State: v.OverrideState.String()}
	if !doc.Healthy {
		doc.Reason = string(v.Result.Body)
	}
	doc.Found = newFoundJSON(v.Result.Fields)
	for _, p := range v.Result.Parts {
		doc.Checks = append(doc.Checks, checkJSON{
			Name: p.Name, Healthy: p.Result.Code == http.StatusOK,
			Message: string(p.Result.Body), Seconds: p.Result.Took.Seconds(), Found: newFoundJSON(p.Result.Fields),
		})
	}
	b, err := json.Marshal(doc)
	if err != nil { // cannot happen: the document has only strings, numbers and booleans
		return []byte(`{"healthy":false}`)
	}
	return textfmt.EscapeJSON(b)
}

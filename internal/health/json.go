package health

import (
	"encoding/json"
	"net/http"

	"hacheck/internal/textfmt"
)

// verdictJSON is the verdict on the configured checks of a service, for clients that accept JSON.
type verdictJSON struct {
	Healthy bool        `json:"healthy"`
	State   string      `json:"state,omitempty"`  // of the override: up, drain, down or maint
	Reason  string      `json:"reason,omitempty"` // why the service is not healthy
	Checks  []checkJSON `json:"checks,omitempty"`
}

type checkJSON struct {
	Name    string  `json:"name"`
	Healthy bool    `json:"healthy"`
	Message string  `json:"message"`
	Seconds float64 `json:"seconds"`
}

// JSON returns v as a document with the result and the duration of each check.
func (v *Verdict) JSON() []byte {
	doc := verdictJSON{Healthy: v.Result.Code == http.StatusOK, State: v.OverrideState.String()}
	if !doc.Healthy {
		doc.Reason = string(v.Result.Body)
	}
	for _, p := range v.Result.Parts {
		doc.Checks = append(doc.Checks, checkJSON{
			Name: p.Name, Healthy: p.Result.Code == http.StatusOK,
			Message: string(p.Result.Body), Seconds: p.Result.Took.Seconds(),
		})
	}
	b, err := json.Marshal(doc)
	if err != nil { // of strings and numbers: cannot happen
		return []byte(`{"healthy":false}`)
	}
	return textfmt.EscapeJSON(b)
}

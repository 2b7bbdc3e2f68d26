package admin

import (
	"bytes"
	"encoding/json"

	"hacheck/internal/textfmt"
)

// pythonJSON formats a valid JSON value as Python's json.dumps does: a space after comma and colon, and escapes for
// everything but ASCII. Scripts match the lines of halist in that form.
func pythonJSON(raw json.RawMessage) string {
	var compact bytes.Buffer
	if json.Compact(&compact, raw) != nil {
		return ""
	}
	var out []byte
	for rest := compact.Bytes(); len(rest) > 0; {
		n := 1
		switch rest[0] {
		case '"':
			for ; rest[n] != '"'; n++ {
				if rest[n] == '\\' {
					n++
				}
			}
			n++
			var text string
			_ = json.Unmarshal(rest[:n], &text) // a valid string
			out = textfmt.AppendPythonString(out, text)
		case ',', ':':
			out = append(out, rest[0], ' ')
		default:
			out = append(out, rest[0])
		}
		rest = rest[n:]
	}
	return string(out)
}

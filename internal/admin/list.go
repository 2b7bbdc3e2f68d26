package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"hacheck/internal/textfmt"
)

// list is halist: the services the daemon was asked about lately, with its last answer about each.
func (c *command) list() int {
	services, err := c.opt.daemon.recent()
	if err != nil {
		c.errorf("%s", c.unreachable(err))
		return ExitFailed
	}
	if c.opt.json {
		c.document(map[string]any{"services": toServices(services)})
		return ExitOK
	}
	for _, s := range services {
		c.printf("%s last_response=%s\n", textfmt.OneLine(s.service), pythonJSON(s.last))
	}
	return ExitOK
}

// pythonJSON writes a JSON value, which must be valid, as Python's json.dumps does: a blank after
// comma and colon, everything but ASCII escaped. Scripts match the lines of halist by that form.
func pythonJSON(raw json.RawMessage) string {
	var b strings.Builder
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // a number is passed on in the digits it came with
	type level struct {
		object bool
		count  int // values and names written so far
	}
	var stack []level
	for {
		token, err := dec.Token()
		if err != nil {
			return b.String()
		}
		delim, isDelim := token.(json.Delim)
		if closing := isDelim && (delim == ']' || delim == '}'); closing {
			stack = stack[:len(stack)-1]
			b.WriteString(delim.String())
			continue
		}
		if n := len(stack); n > 0 {
			top := &stack[n-1]
			switch {
			case top.object && top.count%2 == 1:
				b.WriteString(": ")
			case top.count > 0:
				b.WriteString(", ")
			}
			top.count++
		}
		switch v := token.(type) {
		case json.Delim:
			b.WriteString(v.String())
			stack = append(stack, level{object: v == '{'})
		case json.Number:
			b.WriteString(v.String())
		case bool:
			b.WriteString(strconv.FormatBool(v))
		case string:
			pythonString(&b, v)
		case nil:
			b.WriteString("null")
		}
	}
}

// pythonString writes a JSON string in ASCII alone.
func pythonString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r >= ' ' && r < 0x7f:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
}

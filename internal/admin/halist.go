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

// listRecent is halist: it prints the services that the daemon was asked about lately, with its last answer about each.
func (c *command) listRecent() int {
	services, err := c.opt.daemon.recent()
	if err != nil {
		c.errorf("%s", c.unreachableText(err))
		return ExitFailed
	}
	if c.opt.json {
		c.printJSON(map[string]any{"services": newServices(services)})
		return ExitOK
	}
	for _, s := range services {
		c.printf("%s last_response=%s\n", textfmt.OneLine(s.service), pythonJSON(s.last))
	}
	return ExitOK
}

// pythonJSON formats a valid JSON value as Python's json.dumps does: a space after comma and colon, and escapes for
// everything but ASCII. Scripts match the lines of halist in that form.
func pythonJSON(raw json.RawMessage) string {
	var b strings.Builder
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // numbers keep their digits
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

// pythonString writes a JSON string in ASCII.
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

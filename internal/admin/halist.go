package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
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
		c.printJSON(map[string]any{"services": services})
		return ExitOK
	}
	for _, s := range services {
		c.printf("%s last_response=%s\n", textfmt.OneLine(s.Service), pythonJSON(s.Last))
	}
	return ExitOK
}

// pythonJSON formats a valid JSON value as Python's json.dumps does: a space after comma and colon, and escapes for
// everything but ASCII. Scripts match the lines of halist in that form.
func pythonJSON(raw json.RawMessage) string {
	var compact bytes.Buffer
	if json.Compact(&compact, raw) != nil {
		return ""
	}
	var b strings.Builder
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
			pythonString(&b, text)
		case ',', ':':
			b.Write([]byte{rest[0], ' '})
		default:
			b.WriteByte(rest[0])
		}
		rest = rest[n:]
	}
	return b.String()
}

// pythonString writes a JSON string in ASCII.
func pythonString(b *strings.Builder, s string) {
	escapes := map[rune]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}
	b.WriteByte('"')
	for _, r := range s {
		switch escape := escapes[r]; {
		case escape != "":
			b.WriteString(escape)
		case r >= ' ' && r < 0x7f:
			b.WriteRune(r)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(b, `\u%04x`, unit)
			}
		}
	}
	b.WriteByte('"')
}

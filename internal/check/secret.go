package check

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a password that cannot print itself: every verb of fmt, slog and text encoders such as JSON's write "***",
// or nothing when it is empty. string(s) is the password.
type Secret string

func (s Secret) hidden() string {
	if s == "" {
		return ""
	}
	return "***"
}

// String returns "***", or "" for an empty secret.
func (s Secret) String() string { return s.hidden() }

// Format writes what String returns, whatever the verb, because %q, %x and %#v do not call String.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.hidden()) }

// MarshalText returns what String returns.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.hidden()), nil }

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.hidden()) }

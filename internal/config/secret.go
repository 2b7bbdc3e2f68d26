package config

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a password or a token that is never printed: formatting, logging or encoding it, or a struct that holds it,
// shows "(hidden)" instead of the text. The zero value is no secret.
//
// The text is behind a pointer because fmt does not call the methods of a value in an unexported field. It prints the
// address there instead of the text.
type Secret struct{ text *string }

// hidden is shown instead of a secret.
const hidden = "(hidden)"

// NewSecret returns text as a Secret; "" is no secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text, "" if there is none. Pass it only to code that logs in.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsSet reports whether there is a secret.
func (s Secret) IsSet() bool { return s.text != nil }

// String returns "(hidden)", or "" if there is no secret.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return hidden
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return "config.Secret{" + s.String() + "}" }

// Format hides the secret from every verb of fmt, also from wrong ones such as %d and %x.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText hides the secret from encoding/xml and other encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON hides the secret from encoding/json.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalYAML hides the secret from YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue hides the secret from log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

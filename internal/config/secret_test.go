package config

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/check"
)

// TestSecretLeaks prints a secret in every way a daemon prints things, by itself and inside others.
func TestSecretLeaks(t *testing.T) {
	s := NewSecret(secretText)
	type inner struct{ s Secret }
	type Outer struct {
		Public Secret
		hidden Secret
		Ptr    *Secret
		In     inner
		List   []Secret
		Map    map[string]Secret
	}
	c := Default()
	c.MySQLPassword, c.RedisPassword, c.RemoteSpoolToken = s, s, s
	values := map[string]any{
		"secret": s, "pointer": &s, "config": c, "config value": *c,
		"struct": Outer{s, s, &s, inner{s}, []Secret{s}, map[string]Secret{"k": s}},
		"error":  fmt.Errorf("log in: %w %v", errors.New("no"), s),
	}
	var b bytes.Buffer
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			b.Reset()
			for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %d %c %U %t %e %p %T %w %o %b %10.3s %-30v") {
				fmt.Fprintf(&b, verb+"\n", v)
			}
			fmt.Fprintln(&b, v, []any{v})
			_ = json.NewEncoder(&b).Encode(v)
			_ = xml.NewEncoder(&b).Encode(v)
			if y, err := yaml.Marshal(map[string]any{"v": v}); err == nil {
				b.Write(y)
			}
			_ = template.Must(template.New("").Parse("{{.}} {{printf `%x` .}}")).Execute(&b, v)
			slog.New(slog.NewTextHandler(&b, nil)).Info("text", "v", v, slog.Group("g", "v", v))
			slog.New(slog.NewJSONHandler(&b, nil)).Info("json", "v", v, slog.Group("g", "v", v))
			for _, leak := range []string{secretText, fmt.Sprintf("%x", secretText), fmt.Sprintf("%X", secretText), fmt.Sprintf("%d", []byte(secretText))} {
				if strings.Contains(b.String(), leak) {
					t.Errorf("%q shows in:\n%s", leak, b.String())
				}
			}
		})
	}
	if s.Reveal() != secretText || !s.IsSet() {
		t.Error("the secret is lost")
	}
	if none := NewSecret(""); none.IsSet() || none.Reveal() != "" || none.String() != "" || none != (Secret{}) {
		t.Error("an empty text is a secret")
	}
}

// TestSecrets: every key that is a secret is named where it is set, and so is every secret option of a check.
func TestSecrets(t *testing.T) {
	c, _, err := Load("testdata/good/every-key.yaml")
	if err != nil {
		t.Fatal(err)
	}
	places := c.SecretLocations()
	for _, k := range keys {
		if k.secret && !slices.Contains(places, k.Name) {
			t.Errorf("%s is a secret, and Secrets returns %q", k.Name, places)
		}
	}
	for _, typ := range check.Types() {
		for _, o := range typ.Options {
			if o.Secret && !holdsSecret(o.Name, []any{[]any{"X-Api-Key", secretText}}) {
				t.Errorf("a secret %s of %s is not seen", o.Name, typ.Name)
			}
		}
	}
	if got := (&Config{}).SecretLocations(); got != nil {
		t.Errorf("an empty configuration has secrets: %q", got)
	}
}

// TestSecretWords: arguments of a script that are clearly no password are not taken for one.
func TestSecretWords(t *testing.T) {
	for args, want := range map[string]bool{
		"": false, "--port 2191": false, "-t 5s -n 3 --quiet": false, "/etc/x.conf ./y": false, "127.0.0.1:80 ::1 localhost:80": false,
		"http://127.0.0.1/x": false, "--port=80 --file=/x": false, "-verbose": false, "-p2191": false, "--name=": false,
		secretText: true, "--password 1234": true, "--password=1": true, "-p" + secretText: true, "http://u:p@h/": true, "http://h/?key=1": true,
		"PGPASSWORD=/x": true, "--community public": true, "-H x": true,
	} {
		if got := mayHoldSecret(strings.Fields(args)); got != want {
			t.Errorf("hasSecretWord(%q) = %v, want %v", args, got, want)
		}
	}
}

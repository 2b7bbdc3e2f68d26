package check_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"hacheck/internal/check"
)

func TestSecretNeverPrints(t *testing.T) {
	o := check.Options{MySQLUsername: "u", MySQLPassword: "hunter2", RedisPassword: "hunter2"}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&out, verb+verb+verb, o, &o, o.MySQLPassword)
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("x", "options", o, "password", o.MySQLPassword)
	}
	j, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	for _, leak := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2")} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("shows %s in %s", leak, out.String())
		}
	}
	if got := fmt.Sprint(check.Secret("hunter2"), check.Secret("")); got != "***" {
		t.Errorf("prints %q", got)
	}
	if string(o.MySQLPassword) != "hunter2" {
		t.Error("cannot be used")
	}
}

package check_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"hacheck/internal/check"
	"hacheck/internal/check/checktest"
)

// rows says for every protocol how a healthy server of it talks.
func rows(set check.Set) map[string]checktest.Row {
	return map[string]checktest.Row{
		"http": {
			Check:   set["http"].Check,
			Target:  check.Target{Service: "web", URI: "/status"},
			Healthy: healthyHTTP,
		},
		"tcp": {
			Check:       set["tcp"].Check,
			Healthy:     func(net.Conn) {},
			ConnectOnly: true,
		},
	}
}

func TestSuite(t *testing.T) {
	set := check.All(check.Options{Version: "1.2.3"})
	rows := rows(set)
	for name, p := range set {
		if p.Check == nil {
			continue
		}
		if _, ok := rows[name]; !ok {
			t.Errorf("protocol %s has no row in the suite", name)
		}
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) { checktest.Run(t, row) })
	}
}

func healthyHTTP(conn net.Conn) {
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nOK\n")
}

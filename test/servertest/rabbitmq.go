package servertest

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// RabbitMQ starts a RabbitMQ broker, which takes some seconds. Its user operator has the password s3cret and may use the
// virtual host "/" but not "private". It speaks TLS on tlsPort, with clients that have a certificate of clients. It
// logs a connection only if something is wrong with it.
func RabbitMQ(t testing.TB, certificate tls.Certificate, clients *x509.Certificate) (s *Server, tlsPort uint16) {
	t.Helper()
	// epmd is Erlang's port mapper. RabbitMQ itself would start one that outlives it.
	epmd := Start(t, Spec{
		Binary: "epmd", Package: "rabbitmq-server", User: unprivileged,
		Args: func(port uint16, _ string) ([]string, error) {
			return []string{"-address", Host, "-port", fmt.Sprint(port)}, nil
		},
	})
	// The program in PATH is a wrapper of Debian, which starts only Debian's own node.
	binary := Find(t, "/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
	dir := tempDir(t)
	const salt = "salt"
	hash := sha256.Sum256([]byte(salt + "s3cret"))
	definitions := fmt.Sprintf(`{
	"users": [{"name": "operator", "password_hash": %q, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ""}],
	"vhosts": [{"name": "/"}, {"name": "private"}],
	"permissions": [{"user": "operator", "vhost": "/", "configure": "", "write": "", "read": ""}]
}`, base64.StdEncoding.EncodeToString(append([]byte(salt), hash[:]...)))
	s = Start(t, Spec{
		Binary: binary, Package: "rabbitmq-server", User: unprivileged,
		Env: []string{
			"HOME=" + dir, "RABBITMQ_NODENAME=hacheck@localhost", fmt.Sprintf("ERL_EPMD_PORT=%d", epmd.Port), "ERL_EPMD_ADDRESS=" + Host,
			"RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"), "RABBITMQ_CONF_ENV_FILE=" + filepath.Join(dir, "none"),
			"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "mnesia"), "RABBITMQ_LOGS=-", "RABBITMQ_LOG_BASE=" + dir, "ERL_CRASH_DUMP_SECONDS=0", "RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "plugins"),
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none",
		},
		Args: func(port uint16, _ string) ([]string, error) {
			cert, key, err := writeCertificate(dir, certificate)
			if err != nil {
				return nil, err
			}
			if tlsPort, err = FreePort(); err != nil {
				return nil, err
			}
			distribution, err := FreePort()
			if err != nil {
				return nil, err
			}
			config := fmt.Sprintf(`listeners.tcp.1 = %[1]s:%[2]d
listeners.ssl.1 = %[1]s:%[3]d
ssl_options.certfile = %[4]s
ssl_options.keyfile = %[5]s
ssl_options.cacertfile = %[6]s/clients.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
log.connection.level = warning
load_definitions = %[6]s/definitions.json
distribution.listener.port_range.min = %[7]d
distribution.listener.port_range.max = %[7]d
distribution.listener.interface = %[1]s
`, Host, port, tlsPort, cert, key, dir, distribution)
			authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: clients.Raw})
			return nil, errors.Join(
				os.WriteFile(filepath.Join(dir, "clients.pem"), authority, 0o644),
				os.WriteFile(filepath.Join(dir, "rabbitmq.conf"), []byte(config), 0o644),
				os.WriteFile(filepath.Join(dir, "definitions.json"), []byte(definitions), 0o644),
				os.WriteFile(filepath.Join(dir, "plugins"), []byte("[].\n"), 0o644),
			)
		},
		Ready: func(s *Server) error {
			if !strings.Contains(s.Log(), "Server startup complete") {
				return errors.New("it does not say that it is ready")
			}
			return acceptsConnections(s)
		},
	})
	return s, tlsPort
}

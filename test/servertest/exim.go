package servertest

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// EximMail starts an exim4 that accepts mail to inbox.example after a login as operator with the password s3cret. It
// keeps the mail under Dir/input (see exim's specification of its spool files) and delivers none. It offers STARTTLS,
// and speaks TLS from the first byte on tlsPort.
func EximMail(t testing.TB, certificate tls.Certificate) (s *Server, tlsPort uint16) {
	t.Helper()
	s = Start(t, Spec{
		Binary: "exim4", Package: "exim4-daemon-light",
		Args: func(port uint16, dir string) ([]string, error) {
			file := filepath.Join(dir, "exim.conf")
			cert, key, err := writeCertificate(dir, certificate)
			if err != nil {
				return nil, err
			}
			if tlsPort, err = FreePort(); err != nil {
				return nil, err
			}
			// exim4 reads the key as another user.
			if err := os.Chmod(key, 0o644); err != nil {
				return nil, err
			}
			text := fmt.Sprintf(`primary_hostname = mail.example
spool_directory = %[1]s
log_file_path = %[1]s/%%slog
pid_file_path = %[1]s/pid
daemon_smtp_ports = %[2]d : %[3]d
tls_on_connect_ports = %[3]d
local_interfaces = %[4]s
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts = *
tls_certificate = %[5]s
tls_privatekey = %[6]s
queue_only = true
acl_smtp_rcpt = recipient
begin acl
recipient:
  deny message = log in first
    !authenticated = *
  accept domains = inbox.example
  deny message = relay not permitted
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and {{eq {$auth2}{operator}}{eq {$auth3}{s3cret}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and {{eq {$auth1}{operator}}{eq {$auth2}{s3cret}}}}
  server_set_id = $auth1
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq {$auth1}{operator}{s3cret}fail}
  server_set_id = $auth1
`, dir, port, tlsPort, Host, cert, key)
			return []string{"-C", file, "-bdf"}, os.WriteFile(file, []byte(text), 0o644)
		},
	})
	return s, tlsPort
}

package servertest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Slapd starts an OpenLDAP server. The name cn=operator has the password s3cret. It speaks TLS after StartTLS,
// and from the first byte on at tlsPort. lines are added to its configuration. A client that shows a certificate needs
// one of clients.
func Slapd(t testing.TB, certificate tls.Certificate, clients *x509.Certificate, lines string) (s *Server, tlsPort uint16) {
	t.Helper()
	s = Start(t, Spec{
		Binary: "slapd", Package: "slapd",
		Args: func(port uint16, dir string) ([]string, error) {
			cert, key, err := writeCertificate(dir, certificate)
			if err != nil {
				return nil, err
			}
			if tlsPort, err = FreePort(); err != nil {
				return nil, err
			}
			authority := filepath.Join(dir, "clients.pem")
			if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: clients.Raw}), 0o644); err != nil {
				return nil, err
			}
			file := filepath.Join(dir, "slapd.conf")
			config := fmt.Sprintf(`pidfile %[1]s/pid
argsfile %[1]s/args
TLSCertificateFile %[2]s
TLSCertificateKeyFile %[3]s
TLSCACertificateFile %[4]s
%[5]s
database ldif
suffix ""
rootdn "cn=operator"
rootpw s3cret
directory %[1]s
`, dir, cert, key, authority, lines)
			urls := fmt.Sprintf("ldap://%[1]s:%[2]d ldaps://%[1]s:%[3]d", Host, port, tlsPort)
			return []string{"-f", file, "-h", urls, "-d", "stats"}, os.WriteFile(file, []byte(config), 0o644)
		},
	})
	return s, tlsPort
}

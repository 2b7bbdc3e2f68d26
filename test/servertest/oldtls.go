package servertest

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// OpenSSL starts an OpenSSL server that answers any GET with a page over TLS. options are those of s_server, for what
// newer servers no longer speak.
func OpenSSL(t testing.TB, certificate tls.Certificate, options ...string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "openssl", Package: "openssl",
		Args: func(port uint16, dir string) ([]string, error) {
			cert, key, err := writeCertificate(dir, certificate)
			args := []string{"s_server", "-accept", fmt.Sprintf("%s:%d", Host, port), "-cert", cert, "-key", key, "-www", "-quiet"}
			return append(args, options...), err
		},
	})
}

// ApacheTLS starts an Apache that answers over TLS 1.2. Below /optional it asks for a client certificate, for which it
// renegotiates.
func ApacheTLS(t testing.TB, certificate tls.Certificate) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "apache2", Package: "apache2-bin",
		Args: func(port uint16, dir string) ([]string, error) {
			cert, key, err := writeCertificate(dir, certificate)
			if err != nil {
				return nil, err
			}
			file := filepath.Join(dir, "apache.conf")
			text := fmt.Sprintf(`ServerName localhost
User www-data
Group www-data
ServerRoot %[1]s
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
Mutex file:%[1]s default
ErrorLog /dev/stderr
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule socache_shmcb_module /usr/lib/apache2/modules/mod_socache_shmcb.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
Listen %[2]s:%[3]d
DocumentRoot %[1]s/www
SSLEngine on
SSLCertificateFile %[4]s
SSLCertificateKeyFile %[5]s
SSLCACertificateFile %[4]s
SSLProtocol TLSv1.2
<Directory %[1]s/www>
	Require all granted
</Directory>
<Location /optional>
	SSLVerifyClient optional
</Location>
`, dir, Host, port, cert, key)
			www := filepath.Join(dir, "www")
			if err := os.Mkdir(www, 0o755); err != nil {
				return nil, err
			}
			for _, name := range []string{"optional", "index.html"} {
				if err := os.WriteFile(filepath.Join(www, name), []byte("OK\n"), 0o644); err != nil {
					return nil, err
				}
			}
			return []string{"-f", file, "-DFOREGROUND"}, os.WriteFile(file, []byte(text), 0o600)
		},
	})
}

package servertest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// ApacheDigest starts an Apache whose pages need a digest login (MD5). login is a line of htdigest for the realm
// "status pages". Apache writes one line
// "<port of the client> <status>" for each request to its log, so that its connections can be counted. config is added
// to its configuration.
func ApacheDigest(t testing.TB, login, config string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "apache2", Package: "apache2-bin",
		Args: func(port uint16, dir string) ([]string, error) {
			www, file := filepath.Join(dir, "www"), filepath.Join(dir, "apache.conf")
			text := fmt.Sprintf(`ServerName localhost
User www-data
Group www-data
ServerRoot %[1]s
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
Mutex file:%[1]s default
ErrorLog /dev/stderr
LogLevel crit
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule authn_file_module /usr/lib/apache2/modules/mod_authn_file.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule auth_digest_module /usr/lib/apache2/modules/mod_auth_digest.so
LogFormat "%%{remote}p %%>s" requests
CustomLog %[1]s/requests requests
Listen %[2]s:%[3]d
DocumentRoot %[1]s/www
<Directory %[1]s/www>
	AuthType Digest
	AuthName "status pages"
	AuthDigestProvider file
	AuthUserFile %[1]s/passwords
	Require valid-user
</Directory>
%[4]s
`, dir, Host, port, config)
			for name, content := range map[string]string{
				file: text, filepath.Join(dir, "passwords"): login + "\n",
				filepath.Join(www, "index.html"): "OK\n",
			} {
				if err := os.MkdirAll(www, 0o755); err != nil {
					return nil, err
				}
				if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
					return nil, err
				}
			}
			return []string{"-f", file, "-DFOREGROUND"}, nil
		},
	})
}

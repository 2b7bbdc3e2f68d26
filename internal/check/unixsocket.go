package check

import "strings"

// maxSocketPath is the longest path of a Unix socket on Linux, in bytes (unix(7)).
const maxSocketPath = 107

// socketHostOption is the option host of types whose server may listen on a Unix socket.
var socketHostOption = Option{Name: "host", Want: "an IP address, a host name or the absolute path of a Unix socket", Required: true, Doc: "the host of the service"}

// hostOrSocket returns the option host: a host, or the path of a Unix socket.
func (o *optionReader) hostOrSocket() (host, socket string) {
	path := o.text("host", "")
	if o.option("host").Want != socketHostOption.Want || !strings.HasPrefix(path, "/") {
		return o.host("host"), ""
	}
	if path = o.plainText("host", ""); len(path) > maxSocketPath {
		o.addValueError("host", path)
	}
	if on, _ := truth(o.spec.Options["use_tls"]); on && o.hasOption("use_tls") {
		o.addError("use_tls", "the server speaks no TLS on a Unix socket")
	}
	return path, path
}

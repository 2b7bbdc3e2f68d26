package check

// sendProxyOption is the option of checks of a service behind HAProxy's send-proxy: the service takes no connection
// without a PROXY line.
var sendProxyOption = Option{Name: "send_proxy", Want: "v1 or v2", Doc: "begin the connection with a PROXY line of this version, as HAProxy's check-send-proxy does"}

// The PROXY lines of a connection that stands for no client
// (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 and 2.2).
const (
	proxyLineV1 = "PROXY UNKNOWN\r\n"
	proxyLineV2 = "\r\n\r\n\x00\r\nQUIT\n" + "\x20\x00\x00\x00" // signature; version 2, LOCAL; no addresses
)

// sendProxy reads sendProxyOption.
func (o *optionReader) sendProxy() string {
	switch v := o.text(sendProxyOption.Name, ""); v {
	case "":
		return ""
	case "v1":
		return proxyLineV1
	case "v2":
		return proxyLineV2
	default:
		o.addValueError(sendProxyOption.Name, v)
		return ""
	}
}

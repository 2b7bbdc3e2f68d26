package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"hacheck/internal/clients"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

// Remote says who may change overrides over HTTP. The zero value allows nobody.
type Remote struct {
	Enabled bool           // allow_remote_spool_changes
	Allowed []netip.Prefix // remote_spool_allowed: callers that need no token
	Token   string         // remote_spool_token: for everybody else; "" is no token
	Spool   Spool
}

// Spool is where overrides are written; *spool.Dir is one.
type Spool interface {
	Write(e spool.Entry) error
	Remove(k spool.Key) error
}

// refused returns nil when the caller may change overrides.
func (m *Remote) refused(r *http.Request) *refusal {
	if !m.Enabled {
		return &refusal{http.StatusForbidden, "remote spool changes are not enabled: set allow_remote_spool_changes: true in hacheck's configuration"}
	}
	if fromWebPage(r.Header) {
		return &refusal{http.StatusForbidden, "remote spool changes are not for web pages"}
	}
	caller := hostOf(r.RemoteAddr)
	if a, err := netip.ParseAddr(caller); err == nil {
		if contains(m.Allowed, a.WithZone("").Unmap()) {
			return nil
		}
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	shown := strings.EqualFold(scheme, "Bearer")
	switch {
	case m.Token == "":
		return &refusal{http.StatusForbidden, caller + " may not change the spool: add it to remote_spool_allowed, or set remote_spool_token and send it as \"Authorization: Bearer TOKEN\""}
	case !shown:
		return &refusal{http.StatusForbidden, caller + " may not change the spool: add it to remote_spool_allowed, or send remote_spool_token as \"Authorization: Bearer TOKEN\""}
	}
	// Of the digests, so that not even the length of the token can be measured.
	got, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(m.Token))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return &refusal{http.StatusForbidden, caller + " may not change the spool: the token it sent is not remote_spool_token"}
	}
	return nil
}

// fromWebPage reports whether a browser sends a POST on behalf of a page: of any page, since no page of ours
// does, and one whose host name has been made to mean this machine (DNS rebinding) is of the same origin. It
// would borrow its reader's address, which may well be one that needs no token. Browsers name the origin of
// every POST; programs do not.
func fromWebPage(h http.Header) bool {
	site := h.Get("Sec-Fetch-Site")
	return h.Get("Origin") != "" || site != "" && site != "none"
}

// changeSpool answers POST /spool/<service>/<port>/: an operator's word by HTTP, as PaaSTA sends it.
func (s *Server) changeSpool(w http.ResponseWriter, r *http.Request) {
	remote := &s.settings.Load().Remote
	network := clients.NetworkOf(hostOf(r.RemoteAddr)).String()
	if no := remote.refused(r); no != nil {
		s.refused.Add(1)
		const refused = "refused a remote spool change"
		if s.limit.AllowOnce(loglimit.Client, network, refused, "") {
			s.log.Warn(refused, "peer", r.RemoteAddr, "uri", printable(r.RequestURI), "why", no.sentence)
		}
		sentence(w, no.code, no.sentence)
		return
	}
	e, up, no := s.spoolChange(w, r)
	if no != nil {
		sentence(w, no.code, no.sentence)
		return
	}
	var err error
	if up {
		err = remote.Spool.Remove(e.Key)
	} else {
		err = remote.Spool.Write(e)
	}
	switch {
	case errors.Is(err, spool.ErrNotDurable):
		const notDurable = "remote spool change may not survive a power cut"
		if s.limit.Allow(loglimit.Override, network, notDurable) {
			s.log.Warn(notDurable, "service", e.Key.Name(), "err", err)
		}
	case err != nil:
		const failed = "remote spool change failed"
		if s.limit.Allow(loglimit.Override, network, failed) {
			s.log.Error(failed, "service", e.Key.Name(), "peer", r.RemoteAddr, "err", err)
		}
		sentence(w, http.StatusInternalServerError, "the change failed: "+err.Error())
		return
	}
	status := "down"
	if up {
		status = "up"
	}
	const changed = "remote spool change"
	if s.limit.Allow(loglimit.Override, network, changed) {
		s.log.Info(changed, "service", e.Key.Name(), "status", status, "peer", r.RemoteAddr,
			"user_agent", printable(r.UserAgent()), "reason", printable(e.Reason))
	}
	w.Header()["Content-Type"] = textType
	w.WriteHeader(http.StatusOK)
}

// spoolChange reads what is to be changed, and refuses what it cannot mean.
func (s *Server) spoolChange(w http.ResponseWriter, r *http.Request) (e spool.Entry, up bool, no *refusal) {
	bad := func(format string, args ...any) (spool.Entry, bool, *refusal) {
		return spool.Entry{}, false, &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
	}
	if !strings.HasPrefix(r.RequestURI, "/spool/") {
		return e, false, &refusal{http.StatusNotFound, "Not found"}
	}
	service, port, _, no := splitCheckURL(r.RequestURI[len("/spool/"):])
	if no != nil {
		return e, false, no
	}
	nerve := wanted{nerve: wantedBy(r.Header).nerve} // X-Haproxy-Server-State means nothing here
	to, no := nerve.place()
	if no != nil {
		return e, false, no
	}
	e.Key = spool.Key{Service: service, Port: port}
	if to.host != "" {
		switch {
		case port != 0 && to.host != "127.0.0.1":
			e.Key.Host = to.host
		case port == 0 && !s.hosts.Contains(to.addr):
			return bad("X-Nerve-Check-IP names another host, %s, and the port is 0: an override of a whole service is for this machine only", to.host)
		}
	}
	if err := e.Key.Check(); err != nil {
		return bad("%v", err)
	}

	args, err := formOf(w, r)
	if err != nil {
		return bad("cannot read the arguments: %v", err)
	}
	switch args["status"] {
	case "up":
		return e, true, nil
	case "down":
	default:
		return bad("status must be up or down")
	}
	e.State = spool.Down
	reason, ok := args["reason"]
	if !ok {
		return bad("reason is required when status is down")
	}
	e.Reason = reason
	for name, t := range map[string]*time.Time{"expiration": &e.Expires, "creation": &e.Created} {
		v, ok := args[name]
		if !ok {
			continue
		}
		const most = 253_402_300_800 // the year 10000, as for hadown: beyond it these are milliseconds
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(f) || f < 0 || f >= most {
			return bad("%s must be a time in unix seconds, as in %s=%d", name, name, time.Now().Unix())
		}
		whole, frac := math.Modf(f)
		*t = time.Unix(int64(whole), int64(frac*1e9))
	}
	return e, false, nil
}

// formOf returns the arguments of body and query. The body's win over the query's, and the last of
// several over those before it, as in the original. Values are stripped; NUL becomes a space.
func formOf(w http.ResponseWriter, r *http.Request) (map[string]string, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("query string: %w", err)
	}
	sources := []url.Values{query}
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "application/x-www-form-urlencoded":
		if err := r.ParseForm(); err != nil {
			return nil, fmt.Errorf("form: %w", err)
		}
		sources = append(sources, r.PostForm)
	case "multipart/form-data":
		if err := r.ParseMultipartForm(maxFormBytes); err != nil {
			return nil, fmt.Errorf("form: %w", err)
		}
		sources = append(sources, r.MultipartForm.Value)
	}
	args := make(map[string]string)
	for _, values := range sources {
		for name, v := range values {
			value := v[len(v)-1]
			if !utf8.ValidString(value) {
				return nil, fmt.Errorf("%s is not UTF-8", printable(name))
			}
			args[name] = strings.TrimSpace(strings.ReplaceAll(value, "\x00", " "))
		}
	}
	return args, nil
}

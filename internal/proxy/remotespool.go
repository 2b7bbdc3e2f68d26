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

// Remote says which clients may change overrides over HTTP. The zero value allows none.
type Remote struct {
	Enabled bool           // allow_remote_spool_changes
	Allowed []netip.Prefix // remote_spool_allowed: clients that need no token
	Token   string         // remote_spool_token: for all other clients; "" is no token
	Spool   Spool
	// AsksAgent reports whether a balancer asks the agent about k now. No other balancer learns of a weight. nil: yes.
	AsksAgent func(k spool.Key) bool
}

// Spool is where overrides are written; *spool.Dir is one.
type Spool interface {
	Write(e spool.Entry) error
	Remove(k spool.Key) error
	WriteWeight(w spool.Weight) error
	EndWeight(k spool.Key) error
}

// authorize returns nil if the caller may change overrides, else the answer that says which setting is missing.
func (m *Remote) authorize(r *http.Request) *httpError {
	forbid := func(text string) *httpError { return &httpError{http.StatusForbidden, text} }
	if !m.Enabled {
		return forbid("remote spool changes are not enabled: set allow_remote_spool_changes: true in hacheck's configuration")
	}
	if fromWebPage(r.Header) {
		return forbid("remote spool changes are not for web pages")
	}
	caller := clients.HostPart(r.RemoteAddr)
	if clients.Contains(m.Allowed, clients.AddrOrZero(caller)) {
		return nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case m.Token == "":
		return forbid(caller + " may not change the spool: add it to remote_spool_allowed, or set remote_spool_token and send it as \"Authorization: Bearer TOKEN\"")
	case !strings.EqualFold(scheme, "Bearer"):
		return forbid(caller + " may not change the spool: add it to remote_spool_allowed, or send remote_spool_token as \"Authorization: Bearer TOKEN\"")
	}
	// Compare the digests, so that not even the length of the token can be measured.
	got, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(m.Token))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return forbid(caller + " may not change the spool: the token it sent is not remote_spool_token")
	}
	return nil
}

// fromWebPage reports whether a browser sends the request for a web page. No page may change overrides: none of ours
// does, and a page whose host name was made to mean this machine (DNS rebinding) has the same origin. The page would
// use the address of its reader, which may need no token. Browsers send the origin with every POST; programs do not.
func fromWebPage(h http.Header) bool {
	site := h.Get("Sec-Fetch-Site")
	return h.Get("Origin") != "" || site != "" && site != "none"
}

// changeSpool answers POST /spool/<service>/<port>/: an override set or lifted over HTTP, as PaaSTA does.
func (s *Server) changeSpool(w http.ResponseWriter, r *http.Request) {
	remote := &s.settings.Load().Remote
	network := clients.NetworkOf(clients.HostPart(r.RemoteAddr)).String()
	if herr := remote.authorize(r); herr != nil {
		s.refused.Add(1)
		const refused = "refused a remote spool change"
		if s.limit.AllowOnce(loglimit.Client, network, refused, "") {
			s.log.Warn(refused, "peer", r.RemoteAddr, "uri", excerpt(r.RequestURI), "why", herr.text)
		}
		writeText(w, herr.code, herr.text)
		return
	}
	c, herr := s.spoolChange(w, r, remote)
	if herr != nil {
		writeText(w, herr.code, herr.text)
		return
	}
	e := &c.entry
	err := c.apply(remote.Spool)
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
		writeText(w, http.StatusInternalServerError, "the change failed: "+err.Error())
		return
	}
	const changed = "remote spool change"
	if s.limit.Allow(loglimit.Override, network, changed) {
		args := []any{
			"service", e.Key.Name(), "status", c.status, "peer", r.RemoteAddr,
			"user_agent", excerpt(r.UserAgent()), "reason", excerpt(e.Reason),
		}
		if c.percent > 0 {
			args = append(args, "weight", c.percent)
		}
		s.log.Info(changed, args...)
	}
	w.Header()["Content-Type"] = textType
	w.WriteHeader(http.StatusOK)
}

// spoolChange is what a request changes.
type spoolChange struct {
	status  string
	entry   spool.Entry // for up only the times, By and the key that is lifted
	percent int         // the weight that status up sets; 0: status up ends the weight
}

// apply makes the change. Status up sets or ends the weight too, as haup does.
func (c *spoolChange) apply(s Spool) error {
	if c.status != "up" {
		return s.Write(c.entry)
	}
	var err error
	if c.percent > 0 {
		// First, so that the service does not get all of its traffic in between.
		err = s.WriteWeight(spool.Weight{
			Key: c.entry.Key, Percent: c.percent, By: c.entry.By, Created: c.entry.Created, Expires: c.entry.Expires,
		})
	} else {
		err = s.EndWeight(c.entry.Key)
	}
	if err != nil && !errors.Is(err, spool.ErrNotDurable) {
		return err
	}
	return errors.Join(s.Remove(c.entry.Key), err)
}

// spoolChange returns the change that a request asks for.
func (s *Server) spoolChange(w http.ResponseWriter, r *http.Request, remote *Remote) (c spoolChange, herr *httpError) {
	e := &c.entry
	if e.Key, herr = s.spoolKey(r); herr != nil {
		return c, herr
	}
	args, err := formOf(w, r)
	if err != nil {
		return c, badRequest("cannot read the arguments: %v", err)
	}
	e.By = "remote " + clients.HostPart(r.RemoteAddr)
	weight, hasWeight := args["weight"]
	c.status = args["status"]
	switch c.status {
	case "up":
		if !hasWeight {
			return c, nil
		}
		if c.percent, err = spool.ParsePercent(weight); err != nil {
			return c, badRequest("%v", err)
		}
		if c.percent == spool.MaxWeight {
			if _, ok := args["expiration"]; ok {
				return c, badRequest("weight=%d%% ends the weight at once, so it excludes expiration", spool.MaxWeight)
			}
			c.percent = 0 // as haup --weight 100%
			return c, nil
		}
		if remote.AsksAgent != nil && !remote.AsksAgent(e.Key) {
			return c, &httpError{http.StatusConflict, "no balancer asks the agent about " + e.Key.Name() + ", so no balancer would read the weight: " +
				`give hacheck -A PORT, and the server in HAProxy agent-check agent-port PORT agent-send "` + e.Key.Service + `\n"`}
		}
		herr = readTimes(e, args)
		if herr == nil && !e.Expires.IsZero() && !e.Expires.After(time.Now()) {
			herr = badRequest("expiration is in the past, so the weight would end at once")
		}
		return c, herr
	case "down":
		e.State = spool.Down
	case "drain":
		e.State = spool.Drain
	case "maint":
		e.State = spool.Maint
	default:
		return c, badRequest("status must be up, down, drain or maint")
	}
	if hasWeight {
		return c, badRequest("weight is for status up alone")
	}
	var ok bool
	if e.Reason, ok = args["reason"]; !ok {
		return c, badRequest("reason is required when status is %s", e.State)
	}
	return c, readTimes(e, args)
}

// readTimes reads the times of e from the arguments.
func readTimes(e *spool.Entry, args map[string]string) *httpError {
	for name, t := range map[string]*time.Time{"expiration": &e.Expires, "creation": &e.Created} {
		v, ok := args[name]
		if !ok {
			continue
		}
		const year10000 = 253_402_300_800 // the limit of hadown too: a larger number is in milliseconds
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(f) || f < 0 || f >= year10000 {
			return badRequest("%s must be a time in unix seconds, as in %s=%d", name, name, time.Now().Unix())
		}
		whole, frac := math.Modf(f)
		*t = time.Unix(int64(whole), int64(frac*1e9))
	}
	return nil
}

func badRequest(format string, args ...any) *httpError {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// spoolKey returns the key of the override that URL and headers name. X-Haproxy-Server-State means nothing here.
func (s *Server) spoolKey(r *http.Request) (k spool.Key, herr *httpError) {
	if !strings.HasPrefix(r.RequestURI, "/spool/") {
		return k, &httpError{http.StatusNotFound, "Not found"}
	}
	var u checkURL
	if herr := u.parse(r.RequestURI[len("/spool/"):]); herr != nil {
		return k, herr
	}
	var to destination
	if nerve := r.Header[nerveHeader]; len(nerve) > 0 {
		if herr := to.parse(&checkHeaders{nerve: nerve[len(nerve)-1]}); herr != nil {
			return k, herr
		}
	}
	k = spool.Key{Service: u.service, Port: u.port}
	switch {
	case to.host == "":
	case u.port != 0 && to.host != "127.0.0.1":
		k.Host = to.host
	case u.port == 0 && !s.local.Contains(to.addr):
		return k, badRequest("X-Nerve-Check-IP names another host, %s, and the port is 0: an override of a whole service is for this machine only", to.host)
	}
	if err := k.Check(); err != nil {
		return k, badRequest("%v", err)
	}
	return k, nil
}

// formOf returns the arguments of body and query. Those of the body replace those of the query, and the last of several
// those before it, as in the original. Values are stripped; NUL becomes a space.
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
		if err := r.ParseMultipartForm(maxFormBytes); err != nil { //nolint:gosec // MaxBytesReader bounds the body
			return nil, fmt.Errorf("form: %w", err)
		}
		sources = append(sources, r.MultipartForm.Value)
	}
	args := make(map[string]string)
	for _, values := range sources {
		for name, v := range values {
			value := v[len(v)-1]
			if !utf8.ValidString(value) {
				return nil, fmt.Errorf("%s is not UTF-8", excerpt(name))
			}
			args[name] = strings.TrimSpace(strings.ReplaceAll(value, "\x00", " "))
		}
	}
	return args, nil
}

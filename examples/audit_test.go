package examples_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"example.com/hmacverify"
)

const auditChecks = 25

// audit runs the program against a receiver. It returns its output without the
// lines that are ok, how many these are, and its exit status.
func audit(t *testing.T, url string) (failed string, ok, status int) {
	t.Helper()
	out, errs, status := run(t, "", secret, "audit", "-url", url)
	fine := regexp.MustCompile(`(?m)^ok    must (accept|reject) .*: \d+ .*\n`)
	return fine.ReplaceAllString(out, "") + errs, len(fine.FindAllString(out, -1)), status
}

func TestAuditPassesServers(t *testing.T) {
	t.Parallel()
	for _, p := range []*process{
		start(t, secret, "receiver"), start(t, secret, "inbox", "-dir", t.TempDir()),
	} {
		failed, ok, status := audit(t, "http://"+p.addr)
		check(t, p.Path+failed, []int{len(failed), ok, status}, []int{0, auditChecks, 0})
	}
}

// A received is what a receiver decides on. want is the valid signature.
type received struct {
	body, sig, want, contentType string
	headers                      int // with a signature
}

func (r received) valid() bool { return r.sig == r.want && r.headers == 1 }

func receiverThat(accepts func(r received) bool) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sigs := r.Header["X-Guuru-Hmac-Sha256"]
		if !accepts(received{string(body), strings.Join(sigs, ", "), sign(string(body)),
			r.Header.Get("Content-Type"), len(sigs)}) {
			w.WriteHeader(401)
		}
	}))
}

// A receiver with one flaw fails the checks on it, and no other.
func TestAuditFindsFlaws(t *testing.T) {
	t.Parallel()
	find := func(lines string, accepts func(r received) bool) {
		server := receiverThat(accepts)
		defer server.Close()
		failed, ok, status := audit(t, server.URL)
		words := strings.Split(lines, "; ")
		check(t, lines+failed, []int{ok, status}, []int{auditChecks - len(words), 1})
		for _, word := range words {
			check(t, word+" in "+failed, strings.Count(failed, word), 1)
		}
	}
	for lines, accepts := range map[string]func(r received) bool{ // besides what is valid
		"reject a body without a signature, as application/json": func(r received) bool {
			return r.headers == 0 && r.contentType == "application/json" && r.body != ""
		},
		"without a signature, as text/plain": func(r received) bool {
			return r.headers == 0 && r.contentType == "text/plain"
		},
		"reject forms without a signature": func(r received) bool {
			return r.headers == 0 && r.contentType == "application/x-www-form-urlencoded"
		},
		"without a signature or Content-Type": func(r received) bool {
			return r.headers == 0 && r.contentType == ""
		},
		"an empty body without a signature": func(r received) bool { return r.body == "" },
		"an empty signature": func(r received) bool {
			return r.headers == 1 && r.sig == ""
		},
		"its first digit changed": func(r received) bool {
			return len(r.sig) == 64 && r.sig[1:] == r.want[1:]
		},
		"its last digit changed": func(r received) bool {
			return len(r.sig) == 64 && r.sig[:63] == r.want[:63] && !strings.Contains(r.sig, "é")
		},
		"signature that is too short": func(r received) bool {
			return r.sig != "" && strings.HasPrefix(r.want, r.sig)
		},
		"signature that is too long": func(r received) bool { return strings.HasPrefix(r.sig, r.want) },
		"made with an empty secret": func(r received) bool {
			return r.sig == hmacverify.Sign("", []byte(r.body))
		},
		"signature that is not ASCII": func(r received) bool { return strings.HasSuffix(r.sig, "é") },
		"two signatures": func(r received) bool {
			return r.headers == 2 && strings.HasSuffix(r.sig, r.want)
		},
	} {
		find(lines, func(r received) bool { return r.valid() || accepts(r) })
	}
	for lines, rewrite := range map[string]*strings.Replacer{ // before the signature is checked
		"a changed body":    strings.NewReplacer(`"rating":5`, `"rating":1`),
		"a line break":      strings.NewReplacer("}\n", "}"),
		"a byte order mark": strings.NewReplacer("\ufeff", ""),
		"U+FFFD":            strings.NewReplacer("\xff", "\ufffd"),
		"CRLF":              strings.NewReplacer("\r\n", "\n"),
		"a signed body with spaces and escapes; a space added": strings.NewReplacer(`, "`, `,"`),
	} {
		find(lines, func(r received) bool {
			return r.headers == 1 && r.sig == sign(rewrite.Replace(r.body))
		})
	}
	seen := map[string]bool{}
	for lines, rejects := range map[string]func(r received) bool{ // though it is valid
		"begins with 0":  func(r received) bool { return r.sig[0] == '0' },
		"body of 64 KiB": func(r received) bool { return len(r.body) > 65_000 },
		"the same again; after all the others": func(r received) bool {
			again := seen[r.sig]
			seen[r.sig] = true
			return again
		},
	} {
		find(lines, func(r received) bool { return r.valid() && !rejects(r) })
	}
	find("a body without a signature, as application/json; as text/plain; forms; Content-Type; "+
		"an empty body; empty signature; first digit; last digit; empty secret; short; long; ASCII; "+
		"two; changed body; line break; space; order mark; U+FFFD; CRLF",
		func(received) bool { return true })
}

// A redirect, a limit, and a failure reject nothing. No response to one check
// does not end the audit, but a receiver that ended does.
func TestAuditEnds(t *testing.T) {
	t.Parallel()
	const none = "no delivery is accepted: check the URL, GUURU_SECRET, and the proxy in front\n"
	respond := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	end := func(_ http.ResponseWriter, r *http.Request) {
		r.Context().Value(http.ServerContextKey).(*http.Server).Close()
	}
	var url string
	for _, tc := range []struct {
		name   string
		reject http.HandlerFunc
		ok     int
		want   string // at the end of the output
	}{
		{"404", respond(404), auditChecks, ""},
		{"307", respond(307), 6, ": 307 Temporary Redirect\n"},
		{"429", respond(429), 6, ": 429 Too Many Requests\n"},
		{"500", respond(500), 6, ": 500 Internal Server Error\n"},
		{"no response", abort, 6, ": no response: EOF\n"},
		{"ends", end, 5, "\nsince this check, the receiver does not accept deliveries any more\n"},
	} {
		url = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Header.Get("X-Guuru-Hmac-Sha256") != sign(string(body)) {
				tc.reject(w, r)
			}
		})).URL
		failed, ok, status := audit(t, url)
		failed = regexp.MustCompile(`(?m)^[\d/]+ [\d:]+ `).ReplaceAllString(failed, "") // time
		check(t, tc.name+failed, []any{ok, strings.HasSuffix(failed, tc.want), status == 0},
			[]any{tc.ok, true, tc.want == ""})
	}
	failed, ok, status := audit(t, url) // nobody listens any more
	check(t, failed, []any{ok, strings.HasSuffix(failed, none), status}, []any{0, true, 1})
	check(t, failed, strings.Count(failed, "\n"), 2)
}

// What send and audit read and print of a response without an end is limited.
func TestEndlessHeader(t *testing.T) {
	t.Parallel()
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		io.WriteString(conn, "HTTP/1.1 200\r\nContent-Length: "+strings.Repeat("x", 9_000_000))
		conn.Close()
	}))
	defer back.Close()
	for _, args := range [][]string{{"audit", "-url", back.URL}, {"send", "-url", back.URL, "-"}} {
		out, errs, status := run(t, "{}", secret, args[0], args[1:]...)
		check(t, args[0], []any{status, len(out+errs) < 20_000}, []any{1, true})
	}
}

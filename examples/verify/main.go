// Verify explains why a signature does not match: it undoes what commonly happens
// to a body, a secret, and a signature, and names what makes them valid.
//
//	GUURU_SECRET=secr3t go run ./examples/verify deliveries/*.json
//
// A file holds a body; - is standard input. Its signature is -sig, or the 64 hex
// digits in its name. GUURU_SECRET_PREVIOUS is tried, too. No line shows a secret,
// a computed signature, or part of a body. It exits with 0 if all are valid.
package main

import (
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"example.com/hmacverify"
)

func main() {
	sig := flag.String("sig", "", "the `signature` of the files")
	flag.Usage = func() {} // bad usage is one line
	flag.Parse()
	if flag.NArg() == 0 || os.Getenv("GUURU_SECRET") == "" {
		log.Fatal("no GUURU_SECRET, or no file: verify [-sig SIGNATURE] FILE...")
	}
	status := 0
	for _, file := range flag.Args() {
		result := verify(file, *sig)
		if result != "valid" {
			status = 1
		}
		fmt.Printf("%s: %s\n", file, result)
	}
	os.Exit(status)
}

// verify returns "valid", or what is wrong with file.
func verify(file, sig string) string {
	f := os.Stdin
	if file != "-" {
		var err error
		if f, err = os.Open(file); err != nil {
			return err.Error()
		}
		defer f.Close()
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, f, hmacverify.DefaultMaxBodyBytes))
	if err != nil {
		return err.Error()
	}
	digits := regexp.MustCompile(`[0-9A-Fa-f]{64}`)
	return explain(string(body), cmp.Or(sig, digits.FindString(filepath.Base(file))))
}

// explain returns "valid", or what to mend.
func explain(body, sig string) string {
	bodies := undo("order of the body", undo("body", undo("body", []trial{{body, ""}})))
	for _, name := range []string{"GUURU_SECRET", "GUURU_SECRET_PREVIOUS"} {
		for _, secret := range undo("secret "+name, []trial{{os.Getenv(name), ""}}) {
			for _, sig := range undo("signature", []trial{{sig, ""}}) {
				for _, body := range bodies {
					if hmacverify.Verify(secret.value, []byte(body.value), sig.value) == nil {
						return cmp.Or(strings.TrimPrefix(body.undone+secret.undone+sig.undone, "; "), "valid")
					}
				}
			}
		}
	}
	switch {
	case sig == "":
		return "no signature: set -sig, or put its 64 hex digits into the file's name"
	case body == "":
		return "not valid: the body is empty: something consumed it"
	case strings.Contains(body, "\ufffd"):
		return "not valid: the body has U+FFFD where bytes were lost when it was decoded as text"
	case regexp.MustCompile(`^\W*\$[\w{(]`).MatchString(os.Getenv("GUURU_SECRET")):
		return "not valid: the secret looks like a variable that was not expanded"
	}
	return "not valid: another secret, JSON that lost fields, or not from Guuru"
}

// A trial is a value, and what was undone to get it.
type trial struct{ value, undone string }

// undo returns trials, and what comes of each if one more change is undone.
func undo(where string, trials []trial) []trial {
	for _, t := range trials {
		for _, c := range changes {
			if !strings.HasPrefix(where, c.where) {
				continue
			}
			if value := c.undo(t.value); value != "" && value != t.value {
				trials = append(trials, trial{value, t.undone + "; mend the " + where + " (" + c.what + ")"})
			}
		}
	}
	return trials
}

// Where a change did not happen, undo returns its argument, "", or garbage.
var changes = []struct {
	where, what string
	undo        func(string) string
}{
	{"signature", "upper case", strings.ToLower},
	{"signature", "spaces around it", strings.TrimSpace},
	{"signature", "Base64", func(s string) string { return hex.EncodeToString([]byte(unbase64(s))) }},
	{"signature", "two, joined by a comma", replace(`\s*,.*`, "")},
	{"signature", "two, joined by a comma", replace(`.*,\s*`, "")},
	{"signature", "prefix", replace(`^.*[^0-9A-Fa-f\r\n]|\s+$`, "")},
	{"secret", "spaces around it", strings.TrimSpace},
	{"secret", "quotes around it", replace("^\\s*[\"'`]|[\"'`]\\s*$", "")},
	{"secret", "byte order mark", replace("^\ufeff|\\s+$", "")},
	{"secret", "comment after it", replace(`(?s)\s+#.*`, "")},
	{"secret", "Base64", func(s string) string { return strings.TrimRight(unbase64(s), "\r\n") }},
	{"secret", "hex", func(s string) string { b, _ := hex.DecodeString(s); return string(b) }},
	{"secret", "percent-encoded", func(s string) string { u, _ := url.PathUnescape(s); return u }},
	{"body", "byte order mark", replace("^\ufeff", "")},
	{"body", "line break added", replace("[\r\n]+$", "")},
	{"body", "line break lost", replace("$", "\n")},
	{"body", "CRLF in place of LF", replace("\r\n", "\n")},
	{"body", "spaces between tokens", replace(`("(?:[^"\\]|\\.)*"?)|\s+`, "$1")},
	{"body", "escapes that JSON does not need", func(s string) string {
		escape := regexp.MustCompile(`\\(u[dD][89abAB]..\\u....|u....|.)`)
		return escape.ReplaceAllStringFunc(s, func(e string) (c string) {
			if json.Unmarshal([]byte(`"`+e+`"`), &c); c < " " || strings.ContainsAny(c, "\"\\\ufffd") {
				return cmp.Or(map[string]string{`"`: `\"`, `\`: `\\`, "\n": `\n`}[c], e)
			}
			return c
		})
	}},
	{"order", "sorted fields", func(s string) string {
		p, _ := hmacverify.ParsePayload([]byte(s))
		b, _ := json.Marshal(p) // leaves out an empty email
		s = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(b))
		return replace(`("name":"(?:[^"\\]|\\.)*"),"locale"`, `$1,"email":"","locale"`)(s)
	}},
	{"body", "Base64", unbase64},
	{"body", "gzip", func(s string) string {
		var b []byte
		if r, err := gzip.NewReader(strings.NewReader(s)); err == nil {
			b, _ = io.ReadAll(io.LimitReader(r, hmacverify.DefaultMaxBodyBytes))
		}
		return string(b)
	}},
	{"body", "form", func(s string) string { u, _ := url.QueryUnescape(s); return u }},
	{"body", "form, percent-encoded", func(s string) string { u, _ := url.PathUnescape(s); return u }},
	{"body", "form", func(s string) string { v, _ := url.ParseQuery(s); return v.Get("payload") }},
	{"body", "string of JSON", func(s string) (u string) { json.Unmarshal([]byte(s), &u); return u }},
	{"body", "UTF-8 that was read as Latin-1", func(s string) string {
		var b []byte
		for _, r := range s {
			b = append(b, byte(r))
		}
		return string(b)
	}},
}

func replace(pattern, by string) func(string) string {
	re := regexp.MustCompile(pattern)
	return func(s string) string { return re.ReplaceAllString(s, by) }
}

func unbase64(s string) string {
	s = strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(strings.TrimSpace(s)) // also of URLs
	b, _ := base64.RawStdEncoding.DecodeString(s)
	return string(b)
}

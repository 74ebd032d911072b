package examples_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/hmacverify"
)

func compress(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.String()
}

func sign(body string) string { return hmacverify.Sign("secr3t", []byte(body)) }

func encode64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// Whatever happened on the way, verify names it, and where.
func TestVerifyExplains(t *testing.T) {
	t.Parallel()
	const (
		body = `{"user":{"name":"João 😀"},"question":"a/b <c> \n \"+\" \\ 50%","rating":1}`
		// As encoders of PHP, Python, and Go write it.
		php    = `{"user":{"name":"Jo\u00e3o \ud83d\ude00"},"question":"a\/b <c> \n \"+\" \\ 50%","rating":1}`
		python = `{"user": {"name": "Jo\u00e3o \ud83d\ude00"}, "question": "a/b <c> \n \"+\" \\ 50%", "rating": 1}`
		golang = `{"user":{"name":"João 😀"},"question":"a/b \u003cc\u003e \n \"+\" \\ 50%","rating":1}`
	)
	sig := sign(body)
	binary, _ := hex.DecodeString(sig)
	pretty := strings.NewReplacer(`{`, "{\r\n\t", `":`, `": `, `,`, ",\r\n\t").Replace(body) + "\r\n"
	var latin1 []rune
	for _, b := range []byte(body) {
		latin1 = append(latin1, rune(b))
	}
	quoted, _ := json.Marshal(body)
	lf := strings.ReplaceAll(body, ",", ",\n")
	const another = "not valid: another secret, another body, or not from Guuru"
	for _, tc := range []struct{ body, secret, sig, want string }{
		{body, "secr3t", sig, "valid"},

		{encode64(body) + "\n", "secr3t", sig, "mend the body (Base64)"},
		{compress(body), "secr3t", sig, "mend the body (gzip)"},
		{url.QueryEscape(body), "secr3t", sig, "mend the body (form)"},
		{url.PathEscape(body), "secr3t", sig, "mend the body (form, percent-encoded)"},
		{"a=b&payload=" + url.QueryEscape(body), "secr3t", sig, "mend the body (form)"},
		{string(quoted), "secr3t", sig, "mend the body (string of JSON)"},
		{"\ufeff" + body, "secr3t", sig, "mend the body (byte order mark)"},
		{string(latin1), "secr3t", sig, "mend the body (UTF-8 that was read as Latin-1)"},
		{body + "\r\n", "secr3t", sig, "mend the body (line break added)"},
		{lf, "secr3t", sign(lf + "\n"), "mend the body (line break lost)"},
		{strings.ReplaceAll(lf, "\n", "\r\n"), "secr3t", sign(lf), "mend the body (CRLF in place of LF)"},
		{pretty, "secr3t", sig, "mend the body (spaces between tokens)"},
		{php, "secr3t", sig, "mend the body (escapes that JSON does not need)"},
		{golang, "secr3t", sig, "mend the body (escapes that JSON does not need)"},
		{python, "secr3t", sig, "mend the body (spaces between tokens); " +
			"mend the body (escapes that JSON does not need)"},
		{encode64(compress(body)), "secr3t", sig, "mend the body (Base64); mend the body (gzip)"},
		{compress(encode64(body)), "secr3t", sig, "mend the body (gzip); mend the body (Base64)"},
		{"", "secr3t", sig, "not valid: the body is empty: something consumed it"},
		{body + "\ufffd", "secr3t", sig,
			"not valid: the body has U+FFFD where bytes were lost when it was decoded as text"},

		{body, " secr3t\r", sig, "mend the secret GUURU_SECRET (spaces around it)"},
		{body, "'secr3t'\n", sig, "mend the secret GUURU_SECRET (quotes around it)"},
		{body, "\ufeffsecr3t", sig, "mend the secret GUURU_SECRET (byte order mark)"},
		{body, "secr3t # comment", sig, "mend the secret GUURU_SECRET (comment after it)"},
		{body, encode64("secr3t\n"), sig, "mend the secret GUURU_SECRET (Base64)"},
		{body, hex.EncodeToString([]byte("secr3t")), sig, "mend the secret GUURU_SECRET (hex)"},
		{body, "secr%33t", sig, "mend the secret GUURU_SECRET (percent-encoded)"},
		{body, "${SECRET}", sig, "not valid: the secret looks like a variable that was not expanded"},

		{body, "secr3t", strings.ToUpper(sig), "mend the signature (upper case)"},
		{body, "secr3t", "sha256= " + sig, "mend the signature (prefix)"},
		{body, "secr3t", " " + sig + "\n", "mend the signature (spaces around it)"},
		{body, "secr3t", encode64(string(binary)), "mend the signature (Base64)"},
		{body, "secr3t", sig + ", " + sign("{}"), "mend the signature (two, joined by a comma)"},
		{body, "secr3t", sign("{}") + "," + sig, "mend the signature (two, joined by a comma)"},

		{encode64("\ufeff" + body), `"secr3t"`, "sha256=" + sig, "mend the body (Base64); " +
			"mend the body (byte order mark); mend the secret GUURU_SECRET (quotes around it); " +
			"mend the signature (prefix)"},
		{body, "other", sig, another},
		{"{}" + body, "secr3t", sig, another},
		{body, "secr3t", sig[1:], another},
	} {
		out, errs, status := run(t, tc.body, "GUURU_SECRET="+tc.secret, "verify", "-sig", tc.sig, "-")
		if out != "-: "+tc.want+"\n" || errs != "" || (status == 0) != (tc.want == "valid") {
			t.Errorf("%.50q, %q, %q: got %q, %q, status %d; want %q",
				tc.body, tc.secret, tc.sig, out, errs, status, tc.want)
		}
	}
}

// The signature is in the name of a file. Every file gets a line.
func TestVerifyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name, body string) string {
		os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600)
		return filepath.Join(dir, name)
	}
	sig, old := sign("{}"), hmacverify.Sign("old", []byte("{}"))
	stored := put("chat-rated-"+sig+".json", "{}")
	previous := put(old, "{}")
	kept := put("mismatch-"+sig+".json", "{}\n")
	unnamed := put("body.json", "{}")
	const env = secret + ",GUURU_SECRET_PREVIOUS=old"
	const unsigned = "no signature: set -sig, or put its 64 hex digits into the file's name"
	for _, tc := range []struct {
		args, env, out, err string // err is a suffix
	}{
		{stored + " " + previous, env, stored + ": valid\n" + previous + ": valid\n", ""},
		{"-sig " + sig + " " + unnamed, env, unnamed + ": valid\n", ""},
		{"-sig " + sig + " " + previous, "GUURU_SECRET=old,GUURU_SECRET_PREVIOUS=\"secr3t\"",
			previous + ": mend the secret GUURU_SECRET_PREVIOUS (quotes around it)\n", ""},
		{unnamed + " absent " + kept + " " + dir, env, unnamed + ": " + unsigned + "\n" +
			"absent: open absent: no such file or directory\n" +
			kept + ": mend the body (line break added)\n" +
			dir + ": read " + dir + ": is a directory\n", ""},
		{"", env, "", "usage: verify [-sig SIGNATURE] FILE...\n"},
		{"-unknown " + stored, env, "", "flag provided but not defined: -unknown\n"},
		{stored, "GUURU_SECRET=", "", "GUURU_SECRET: hmacverify: empty secret\n"},
	} {
		out, errs, status := run(t, "", tc.env, "verify", strings.Fields(tc.args)...)
		valid := tc.out != "" && strings.Count(tc.out, "\n") == strings.Count(tc.out, ": valid\n")
		if out != tc.out || !strings.HasSuffix(errs, tc.err) || (status == 0) != valid ||
			strings.Count(errs, "\n") != strings.Count(tc.err, "\n") {
			t.Errorf("%s: got %q, %q, status %d; want %q, %q", tc.args, out, errs, status, tc.out, tc.err)
		}
	}
}

// A hostile file takes neither long nor much memory.
func TestVerifyHostileFiles(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(i * i * i >> 3)
	}
	for name, body := range map[string]string{
		"bomb":     compress(strings.Repeat("0", 200<<20)),
		"Base64":   encode64(compress(strings.Repeat("0", 200<<20))),
		"brackets": strings.Repeat("[", 1_000_000),
		"noise":    string(noise),
		"escapes":  strings.Repeat(`\u00e3\/`, 100_000),
		"large":    strings.Repeat("{}", 10<<20),
	} {
		begin := time.Now()
		limited := `ulimit -v 2000000 && exec "$0" "$@"` // KiB, of which most is not used
		verify := command(t, nil, "verify").Path
		out, errs, status := run(t, body, secret, "/bin/sh", "-c", limited, verify, "-sig", sign(""), "-")
		took := time.Since(begin)
		if status != 1 || strings.Count(out, "\n") != 1 || errs != "" || took > 20*time.Second {
			t.Errorf("%s: got %q, %q, status %d after %v; want a line", name, out, errs, status, took)
		}
	}
}

package examples_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
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

func encode64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// Whatever happened on the way, verify names it, and where.
func TestVerifyExplains(t *testing.T) {
	t.Parallel()
	const (
		body = `{"user":{"name":"João 😀"},"question":"a/b <c> \n \"+\" \\ 50%","rating":1}`
		// As PHP and Python write it, and with sorted fields.
		python = `{"user": {"name": "Jo\u00e3o \ud83d\ude00"}, "question": "a/b <c> \n \"+\" \\ 50%", "rating": 1}`
		sorted = `{"question":"a/b <c> \n \"+\" \\ 50%","rating":1,"user":{"name":"João 😀"}}`
		php    = `{"user":{"name":"Jo\u00e3o \ud83d\ude00"},"question":"a\/b <c> \n \"+\" \\ 50%","rating":1}`
	)
	sig := sign(body)
	binary, _ := hex.DecodeString(sig)
	pretty := strings.NewReplacer(`{`, "{\r\n\t", `":`, `": `, `,`, ",\r\n\t").Replace(body) + "\r\n"
	latin1 := strings.NewReplacer("ã", "Ã£", "😀", "ð\u009f\u0098\u0080").Replace(body)
	lf := strings.ReplaceAll(body, ",", ",\n")
	const another = "not valid: another secret, JSON that lost fields, or not from Guuru"
	for _, tc := range []struct{ body, secret, sig, want string }{
		{body, "secr3t", sig, "valid"},
		{encode64(body) + "\n", "secr3t", sig, "mend the body (Base64)"},
		{compress(body), "secr3t", sig, "mend the body (gzip)"},
		{url.QueryEscape(body), "secr3t", sig, "mend the body (form)"},
		{url.PathEscape(body), "secr3t", sig, "mend the body (form, percent-encoded)"},
		{"a=b&payload=" + url.QueryEscape(body), "secr3t", sig, "mend the body (form)"},
		{strconv.Quote(body), "secr3t", sig, "mend the body (string of JSON)"},
		{"\ufeff" + body, "secr3t", sig, "mend the body (byte order mark)"},
		{latin1, "secr3t", sig, "mend the body (UTF-8 that was read as Latin-1)"},
		{body + "\r\n", "secr3t", sig, "mend the body (line break added)"},
		{lf, "secr3t", sign(lf + "\n"), "mend the body (line break lost)"},
		{strings.ReplaceAll(lf, "\n", "\r\n"), "secr3t", sign(lf), "mend the body (CRLF in place of LF)"},
		{pretty, "secr3t", sig, "mend the body (spaces between tokens)"},
		{php, "secr3t", sig, "mend the body (escapes that JSON does not need)"},
		{python, "secr3t", sig, "mend the body (spaces between tokens); " +
			"mend the body (escapes that JSON does not need)"},
		{sorted, "secr3t", sig, "mend the order of the body (sorted fields)"},
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
		{body, "secr3t", base64.RawURLEncoding.EncodeToString(binary), "mend the signature (Base64)"},
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
		check(t, tc.body, out+errs, "-: "+tc.want+"\n")
		check(t, "status after "+tc.want, status == 0, tc.want == "valid")
	}
}

// The signature is in the name of a file. Every file gets a line.
func TestVerifyFiles(t *testing.T) {
	t.Parallel()
	dir, sig := t.TempDir(), sign("{}")
	put := func(name, body string) string {
		os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600)
		return filepath.Join(dir, name)
	}
	stored := put("chat-rated-"+sig+".json", "{}")
	previous := put(hmacverify.Sign("old", []byte("{}")), "{}")
	kept := put("mismatch-"+sig+".json", "{}\n")
	unnamed := put("body.json", "{}")
	const env = secret + ",GUURU_SECRET_PREVIOUS=old"
	const unsigned = "no signature: set -sig, or put its 64 hex digits into the file's name"
	for _, tc := range []struct {
		args, env, want string
		status          int
	}{
		{stored + " " + previous, env, stored + ": valid\n" + previous + ": valid\n", 0},
		{"-sig " + sig + " " + unnamed, env, unnamed + ": valid\n", 0},
		{"-sig " + sig + " " + previous, "GUURU_SECRET=old,GUURU_SECRET_PREVIOUS=\"secr3t\"",
			previous + ": mend the secret GUURU_SECRET_PREVIOUS (quotes around it)\n", 1},
		{unnamed + " absent " + kept + " " + dir + " " + stored, env, unnamed + ": " + unsigned + "\n" +
			"absent: open absent: no such file or directory\n" +
			kept + ": mend the body (line break added)\n" +
			dir + ": read " + dir + ": is a directory\n" + stored + ": valid\n", 1},
	} {
		out, errs, status := run(t, "", tc.env, "verify", strings.Fields(tc.args)...)
		check(t, tc.args, out+errs, tc.want)
		check(t, "status after "+tc.args, status, tc.status)
	}
}

// A hostile file takes neither long nor much memory.
func TestVerifyHostileFiles(t *testing.T) {
	t.Parallel()
	if underRace() {
		t.Skip("the race detector takes more than a minute for them")
	}
	bomb := strings.Repeat(compress(strings.Repeat("0", 1<<20)), 300) // 300 MiB
	for name, body := range map[string]string{
		"bomb":     bomb,
		"Base64":   encode64(bomb),
		"brackets": strings.Repeat("[", 1_000_000),
		"noise":    strings.Repeat("\xff\x00%", 1<<18),
		"escapes":  strings.Repeat(`\u00e3\/`, 100_000),
		"open":     `"` + strings.Repeat(` %41\u00e3+\r\n\"`, 55_000), // without a closing quote
		"large":    strings.Repeat("{}", 10<<20),
	} {
		begin := time.Now()
		limited := `ulimit -v 2000000 && exec verify -sig "$0" -` // KiB, of which most is not used
		out, errs, status := run(t, body, secret, "sh", "-c", limited, sign(""))
		check(t, name+errs, []int{status, strings.Count(out, "\n"), len(errs)}, []int{1, 1, 0})
		check(t, name+" in time", time.Since(begin) < 20*time.Second, true)
	}
}

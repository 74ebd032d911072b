// Verify explains why a signature does not match. It undoes common changes to
// bodies, secrets, and signatures until they match, and says what it undid:
//
//	GUURU_SECRET=secr3t go run ./examples/verify deliveries/*.json
//
// A file holds a body; - is standard input. The signature is -sig, or the 64 hex
// digits in the file's name. GUURU_SECRET_PREVIOUS is tried, too. The exit status
// is 0 only if all files are valid. No line shows a secret, a computed signature,
// or part of a body.
package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode/utf16"

	"example.com/hmacverify"
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // a closed pipe is a failed write
	sig := flag.String("sig", "", "the `signature` of the files")
	flag.Usage = func() {} // bad usage is one line
	flag.Parse()
	if flag.NArg() == 0 || os.Getenv("GUURU_SECRET") == "" {
		log.Fatal("no GUURU_SECRET, or no file: verify [-sig SIGNATURE] FILE...")
	}
	status := 0
	for _, file := range flag.Args() {
		result := verify(file, *sig)
		if !strings.HasPrefix(result, "valid") {
			status = 1
		}
		if _, err := fmt.Println(oneLine(file + ": " + result)); err != nil {
			log.Fatal(err)
		}
	}
	os.Exit(status)
}

// oneLine escapes control characters, which a file's name may contain.
func oneLine(s string) string {
	quote := func(c string) string { return strings.Trim(fmt.Sprintf("%+q", c), `"`) }
	return regexp.MustCompile(`[\pC\p{Zl}\p{Zp}]`).ReplaceAllStringFunc(s, quote)
}

const maxBytes = 2 << 20 // of a file, and of what is in a compressed one

func read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(http.MaxBytesReader(nil, os.Stdin, maxBytes))
	}
	info, err := os.Stat(file) // to open a FIFO would wait for a writer
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxBytes) {
		return nil, fmt.Errorf("not a regular file of at most %d bytes", maxBytes)
	}
	return os.ReadFile(file)
}

// verify returns an error, "valid", what to fix, or the best guess.
func verify(file, sig string) string {
	body, err := read(file)
	if err != nil {
		return err.Error()
	}
	sig = cmp.Or(sig, regexp.MustCompile(`[0-9A-Fa-f]{64}`).FindString(filepath.Base(file)))
	secret, previous := os.Getenv("GUURU_SECRET"), os.Getenv("GUURU_SECRET_PREVIOUS")
	if hmacverify.Verify(secret, body, sig) == nil {
		return "valid"
	}
	if hmacverify.Verify(previous, body, sig) == nil {
		return "valid with GUURU_SECRET_PREVIOUS"
	}
	sigs := search("the signature", variant{value: sig}, signatureChanges)
	secrets := slices.Concat(search("GUURU_SECRET", variant{value: secret}, secretChanges),
		search("GUURU_SECRET_PREVIOUS", variant{value: previous}, secretChanges))
	object := regexp.MustCompile(`(?s)\{\s*[\\&"].*\}`).Find(body) // quotes may be \" or &quot;
	for _, start := range []variant{
		{value: string(body)},
		{string(object), []string{"the body has other text around it"}}, // the least exact change
	} {
		found := match(sigs, secrets, search("the body", start, bodyChanges))
		if strings.Contains(strings.Join(found, ""), rewritten) { // a receiver must not undo that
			found = append(found, "verify the raw bytes, before JSON is parsed and written again")
		}
		if found != nil {
			return "to fix: " + strings.Join(found, "; ")
		}
	}
	return "not valid: " + guess(string(body), sig, sigs)
}

// match returns the fewest changes that explain a signature.
func match(sigs, secrets, bodies []variant) []string {
	hashed := 0
	for n := range 2*maxChanges + 2 { // changes of secret and body, and text around it
		for _, secret := range secrets {
			for _, body := range bodies {
				if len(secret.changes)+len(body.changes) != n || secret.value == "" {
					continue
				}
				// In bytes; keying costs as much as 1000. The limit takes a second or two.
				if hashed += 1000 + len(body.value); hashed > 512<<20 {
					return nil
				}
				mac := hmacverify.Sign(secret.value, []byte(body.value))
				if i := slices.IndexFunc(sigs, func(v variant) bool { return v.value == mac }); i >= 0 {
					return slices.Concat(body.changes, secret.changes, sigs[i].changes)
				}
			}
		}
	}
	return nil
}

// guess says what may be wrong with values that no change explains.
func guess(body, sig string, sigs []variant) string {
	isSig := regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString
	err := json.Unmarshal([]byte(body), new(json.RawMessage))
	switch {
	case sig == "":
		return "no signature: set -sig, or put its 64 hex digits into the file's name"
	case !slices.ContainsFunc(sigs, func(v variant) bool { return isSig(v.value) }):
		return fmt.Sprintf("the signature has %d characters, not 64 hex digits", len(sig))
	case regexp.MustCompile(`^\W*(\$[\w{(]|\{\{)|^%\w+%$`).MatchString(os.Getenv("GUURU_SECRET")):
		return "GUURU_SECRET looks like a variable that was not expanded " +
			"(what a shell or compose cuts from $ or # on cannot be recovered)"
	case strings.TrimSpace(body) == "":
		return "the body is empty: something consumed it"
	case strings.Contains(body, "\ufffd"):
		return "the body has U+FFFD, where decoding it as text lost bytes"
	case err != nil && err.Error() == "unexpected end of JSON input":
		return "the body is truncated: it ends before its JSON does"
	case err != nil:
		return "the body is not JSON: something was added, cut, or encoded"
	}
	return "another secret (a shell or compose may have cut it at $ or #), or another body"
}

// A variant is a value as it may have been before changes.
type variant struct {
	value   string
	changes []string // as sentences, the last change first
}

// A change is what may have happened to a value. undo returns the value before
// it. Where it did not happen, undo may return anything: no signature would fit.
type change struct {
	predicate string
	undo      func(string) string
}

const maxChanges = 3 // of each value

// search returns start, and what it may have been before one, two, and three
// changes, until that takes too much memory.
func search(subject string, start variant, changes []change) []variant {
	found, seen, size := []variant{start}, map[string]bool{"": true, start.value: true}, 0
	most := len(start.changes) + maxChanges
	for i := 0; i < len(found) && len(found[i].changes) < most && size < 8<<20; i++ {
		v := found[i] // found is also the queue
		for _, c := range changes {
			before := c.undo(v.value)
			if seen[before] {
				continue
			}
			seen[before] = true
			size += len(before)
			sentences := slices.Concat(v.changes, []string{subject + " " + c.predicate})
			found = append(found, variant{before, sentences})
		}
	}
	return found
}

var signatureChanges = []change{
	{"is in upper case", strings.ToLower},
	{"is Base64", func(s string) string { return toHex(unbase64(s)) }},
	{"is Base64 of its digits", unbase64},
	{"has a prefix, quotes, or spaces around it",
		replace(`^[^,;]*?(?:0x)?(\w[\w+/]{42,}=*)[^\w,;]*$`, "$1")},
	{"has dashes, colons, or spaces between its digits", replace(`[-:\s]`, "")},
	{"is one of several, joined by a comma", replace(`\s*[,;].*`, "")},
	{"is one of several, joined by a comma", replace(`^[^,;]*[,;]\s*`, "")},
}

var secretChanges = []change{
	{"ends with a line break", replace(`[\r\n]+$`, "")},
	{"has spaces around it", strings.TrimSpace},
	{"has invisible characters around it", replace(`^\p{Cf}+|\p{Cf}+$`, "")},
	{"has quotes around it", trimQuotes},
	{"has a comment after it", replace(`(?s)\s+#.*`, "")},
	{"begins with a variable's name", replace(`^\s*(export\s+|set\s+|\$env:)?\w+\s*[=:]\s*`, "")},
	{"has $$ in place of $", replace(`\$\$`, "$$")}, // $$ stands for $ in the latter
	{"has backslashes before characters", replace(`(?s)\\(.)`, "$1")},
	{"has HTML entities", html.UnescapeString},
	{"is Base64", unbase64},
	{"is in hex", unhex},
	{"is percent-encoded", try(url.PathUnescape)},
	{"was decoded from Base64, though Guuru signs with the text", toBase64},
	{"was decoded from hex, though Guuru signs with the text", toHex},
}

const rewritten = "was rewritten " // as JSON

var bodyChanges = []change{
	{"begins with a byte order mark", replace("^\ufeff", "")},
	{"has a line break added at its end", replace(`[\r\n]+$`, "")},
	{"lost the line break at its end", replace(`\z`, "\n")},
	{"has CRLF in place of LF", replace("\r\n", "\n")},
	{rewritten + "with spaces or line breaks outside strings", compact},
	{rewritten + "with escapes that JSON does not need", unescape},
	{rewritten + "with its fields in another order", restoreOrder("isLead isUser locale")},
	{rewritten + "with its fields in another order", restoreOrder("locale isLead isUser")},
	{rewritten + "with null in place of empty strings", replace(`:null\b`, `:""`)},
	{rewritten + "without its empty email", replace(`"name":"(?:[^"\\]|\\.)*"`, `$0,"email":""`)},
	{"is Base64", unbase64},
	{"is gzip", gunzip},
	{"is in hex", unhex},
	{"is percent-encoded, as in a form", try(url.PathUnescape)},
	{"is in a form", unform},
	{"is a JSON string", unquote},
	{"has backslashes before quotes", replace(`(?s)\\(.)`, "$1")},
	{"has backslashes before quotes", replace(`\\"`, `"`)},
	{"is inside a JSON event", unwrapEvent},
	{"has HTTP headers before it", replace(`(?s)^.*?[\w-]+: .*?\r?\n\r?\n`, "")},
	{"has HTML entities", html.UnescapeString},
	{"is UTF-8 that was read as Latin-1 or Windows-1252", toWindows1252.Replace},
	{"is in Latin-1 or Windows-1252", fromWindows1252.Replace},
	{"is in UTF-16", decodeUTF16},
}

func replace(pattern, by string) func(string) string {
	re := regexp.MustCompile(pattern)
	return func(s string) string { return re.ReplaceAllString(s, by) }
}

// try wraps f, and ignores its error: what is left fits no signature.
func try[T string | []byte](f func(string) (T, error)) func(string) string {
	return func(s string) string { v, _ := f(s); return string(v) }
}

func trimQuotes(s string) string { return strings.Trim(s, "\"'`“”„‘’‚«»‹›") }
func toBase64(s string) string   { return base64.StdEncoding.EncodeToString([]byte(s)) }
func toHex(s string) string      { return hex.EncodeToString([]byte(s)) }

func joinWords(s string) string { return strings.Join(strings.Fields(s), "") }
func unhex(s string) string     { return try(hex.DecodeString)(joinWords(s)) }

// unbase64 takes both alphabets, with and without padding.
func unbase64(s string) string {
	s = strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(joinWords(s))
	return try(base64.RawStdEncoding.DecodeString)(s)
}

func gunzip(s string) string {
	var r gzip.Reader
	r.Reset(strings.NewReader(s)) // Read returns its error, too
	b, _ := io.ReadAll(io.LimitReader(&r, maxBytes))
	return string(b)
}

var formValue = replace(`(?s)^(?:.*&)?payload=([^&]*).*|=$`, "$1")

// unform also takes the value of payload, and a form that has only a name.
func unform(s string) string { return try(url.QueryUnescape)(formValue(s)) }

func unquote(s string) (text string) {
	json.Unmarshal([]byte(s), &text)
	return text
}

// unwrapEvent also takes a list of one event.
func unwrapEvent(s string) string {
	var event struct{ Body json.RawMessage }
	json.Unmarshal([]byte(strings.Trim(s, "[] \r\n\t")), &event)
	return cmp.Or(unquote(string(event.Body)), string(event.Body))
}

var fromWindows1252, toWindows1252 = windows1252()

// windows1252 also takes the controls that Latin-1 has at 0x80 to 0x9f.
func windows1252() (from, to *strings.Replacer) {
	var pairs []string
	for c := 0x80; c <= 0xff; c++ {
		b := string([]byte{byte(c)})
		r := html.UnescapeString(fmt.Sprintf("&#%d;", c)) // HTML reads &#128; as 0x80
		pairs = append(pairs, b, r, b, string(rune(c)))
	}
	from = strings.NewReplacer(pairs...) // the first pair of a byte counts
	slices.Reverse(pairs)
	return from, strings.NewReplacer(pairs...)
}

func decodeUTF16(s string) string {
	units := make([]uint16, len(s)/2)
	binary.Decode([]byte(s), binary.LittleEndian, units)
	if strings.HasPrefix(s, "\xfe\xff") {
		binary.Decode([]byte(s), binary.BigEndian, units)
	}
	return strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff")
}

func compact(s string) string {
	var b bytes.Buffer
	json.Compact(&b, []byte(s)) // writes nothing if s is not JSON
	return b.String()
}

var escape = regexp.MustCompile(`\\(u[dD][89abAB]..\\u[dD]...|u....|["\\/bfnrt])`)

// unescape turns \u00e3 into ã, and \/ into /. It leaves the escapes that JSON
// needs, in their shortest form, such as \n.
func unescape(s string) string {
	return escape.ReplaceAllStringFunc(s, func(e string) (c string) {
		json.Unmarshal([]byte(`"`+e+`"`), &c)
		if quoted, _ := json.Marshal(c); c < " " || c == `"` || c == `\` {
			return string(quoted[1 : len(quoted)-1])
		}
		return c
	})
}

// restoreOrder only moves fields, also those of user. If one is unknown or
// doubled, or there are spaces, the length differs, and it returns "".
func restoreOrder(endOfUser string) func(string) string {
	names := strings.Fields("id user name email " + endOfUser + ` question status language
		transcriptURL rating category createdAt acceptedAt closedAt ratedAt`)
	return func(object string) string {
		var values map[string]json.RawMessage
		if strings.Count(object, ":") > 1000 || json.Unmarshal([]byte(object), &values) != nil {
			return "" // many fields would take much memory
		}
		var fields []string
		for _, name := range names {
			if value := string(values[name]); value != "" {
				value = cmp.Or(restoreOrder(endOfUser)(value), value)
				fields = append(fields, `"`+name+`":`+value)
			}
		}
		if ordered := "{" + strings.Join(fields, ",") + "}"; len(ordered) == len(object) {
			return ordered
		}
		return ""
	}
}

package examples_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/hmacverify"
)

func TestGatewayRequest(t *testing.T) {
	t.Parallel()
	from := map[string]bool{}
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from[r.RemoteAddr] = true
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q %d %s %v",
			r.Method, r.Host, r.RequestURI, r.Header, r.ContentLength, body, err)
	}))
	defer back.Close()
	// Of the addresses of this machine, net/http uses a proxy for this one.
	host := strings.Replace(back.Listener.Addr().String(), "127.0.0.1", "0.0.0.0", 1)
	const env = "HTTP_PROXY=http://127.0.0.1:1,GUURU_SECRET=new,GUURU_SECRET_PREVIOUS=secr3t"
	url := "http://" + host + "/hooks//a%2Fb?x=1;y=%zz"
	gateway := start(t, env, "gateway", "-upstream", url)
	const (
		post      = "POST / HTTP/1.1\r\nHost: x\r\n"
		elsewhere = "POST http://user:pw@elsewhere.example/../admin?x=2#y HTTP/1.1\r\nHost: x\r\n"
		// Some are for one connection, and some a backend may take for ours.
		others = "Connection: Upgrade, X-Guuru-Event, Idempotency-Key\r\nUpgrade: websocket\r\n" +
			"Te: trailers\r\nCookie: a=b\r\nX-Forwarded-For: x\r\nUser-Agent: Guuru\r\n" +
			"Accept-Encoding: gzip\r\nX_Guuru_Event: x\r\nX-Guuru-Hmac_Sha256: x\r\n" +
			"X-Guuru-Hmac.Sha256: x\r\nX-Guuru-Hmac!Sha256: x\r\nX-Guuru: x\r\nX-Guuru-: x\r\n" +
			"My-X-Guuru-Event: x\r\nContent-Type2: x\r\n"
	)
	headers := func(secret, body string) string {
		return "X-Guuru-Hmac-Sha256: " + hmacverify.Sign(secret, []byte(body)) +
			"\r\ncontent-type: application/json\r\nIdempotency-Key: a key\r\n" +
			"X-Guuru-Event: chat-rated\r\nX-Guuru-Event: chat-closed\r\nX-GUURU-New-2: new\r\n"
	}
	whole := func(body string) string {
		return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\nTrailer: X-Guuru-Event\r\n\r\n5\r\n%s\r\n"+
		"%x\r\n%s\r\n0\r\nX-Guuru-Event: trailer\r\n\r\n", rated[:5], len(rated)-5, rated[5:])
	passed := func(secret, body string) string {
		return fmt.Sprintf(`200 POST %s /hooks//a%%2Fb?x=1;y=%%zz map["Connection":["close"] `+
			`"Content-Length":["%d"] "Content-Type":["application/json"] "Idempotency-Key":["a key"] `+
			`"X-Guuru-Event":["chat-rated" "chat-closed"] "X-Guuru-Hmac-Sha256":["%s"] `+
			`"X-Guuru-New-2":["new"]] %d %s <nil>`,
			host, len(body), hmacverify.Sign(secret, []byte(body)), len(body), body)
	}
	large := `"` + strings.Repeat("x", 1<<20-1000) + `"` // the echo is longer
	signed := headers("secr3t", rated)
	for _, tc := range []struct{ name, request, want string }{
		{"current secret", post + headers("new", rated) + whole(rated), passed("new", rated)},
		{"previous secret", post + signed + whole(rated), passed("secr3t", rated)},
		{"chunks and a trailer", post + signed + chunked, passed("secr3t", rated)},
		{"another URL and other headers", elsewhere + others + signed + whole(rated),
			passed("secr3t", rated)},
		{"nearly 1 MiB", post + headers("secr3t", large) + whole(large), passed("secr3t", large)},
		{"forged", post + signed + strings.ToUpper(whole(rated)), mismatch},
		{"GET", "GET / HTTP/1.1\r\nHost: x\r\n" + signed + whole(rated), "405 map[Allow:[POST] " +
			"Content-Type:[text/plain; charset=utf-8]] Invalid request, method is not POST"},
	} {
		check(t, tc.name, read(write(t, gateway.addr, tc.request)), tc.want)
	}
	check(t, "connections to the backend", len(from), 5)
	waitFor(t, gateway.log, `listening .*\n.* id=\S+ status=200\n`+
		`(.* id=\S+ note="signed with the previous secret" status=200\n){4}.* signature mismatch`)
}

func TestGatewayResponse(t *testing.T) {
	t.Parallel()
	responses := make(chan string, 1)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		conn, _, _ := w.(http.Hijacker).Hijack()
		io.WriteString(conn, <-responses)
		conn.Close()
	}))
	defer back.Close()
	defer close(responses) // if the gateway sends a delivery twice
	gateway := start(t, secret, "gateway", "-upstream", back.URL+"/path?token=hidden")
	big := strings.Repeat("x", 1<<20)
	const info, warn = "INFO backend responded", "WARN backend responded"
	const failed = "ERROR no usable response"
	const created = "201 Created\r\nContent-Type: text/x\r\nSet-Cookie: a=b\r\nX-Guuru-Event: x\r\n"
	// What it reads and logs of a response without an end is limited.
	endless := "Content-Type: " + strings.Repeat("x", 9_000_000)
	log := `.* listening .*\n`
	for i, tc := range []struct{ response, want, log string }{
		{created + "Content-Length: 2\r\n\r\nhi", "201 map[Content-Type:[text/x]] hi", info},
		{"200 no Content-Type\r\nContent-Length: 6\r\n\r\n<html>", "200 <html>", info},
		{"307 Moved\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nhi", "307 hi", warn},
		{"503 Unavailable\r\nContent-Length: 0\r\n\r\n", "503 ", warn},
		{"099 out of range\r\nContent-Length: 2\r\n\r\nhi", "502 ", failed},
		{"101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "502 ", failed},
		{"no response", "502 ", failed},
		{"200 long\r\n" + endless + "\r\n\r\n", "502 ", failed},
		{"200 truncated\r\nContent-Type: x\r\nContent-Length: 9\r\n\r\nhi", "502 ", failed},
		{"200 at limit\r\nContent-Length: 1048576\r\n\r\n" + big, "200 " + big, info},
		{"200 over limit\r\n\r\n" + big + big, "502 ", failed},
	} {
		responses <- "HTTP/1.1 " + tc.response
		request, id := delivery(strconv.Itoa(i))
		check(t, tc.response, read(write(t, gateway.addr, request)), tc.want)
		log += ".* " + tc.log + " id=" + id + " status=" + tc.want[:3] + ".*\n"
	}
	logged := waitFor(t, gateway.log, "^"+log+"$")[0]
	check(t, "over the limit, it stops reading", strings.Contains(logged, "bytes=1048577 "), true)
	check(t, "the log shows the URL", strings.Contains(logged, "hidden"), false)
	responses <- strings.Repeat("not HTTP", 1_000_000)
	request, _ := delivery("[]")
	check(t, "not HTTP", read(write(t, gateway.addr, request)), "502 ")
	size, _ := os.Stat(gateway.log)
	check(t, fmt.Sprint("size of the log: ", size.Size()), size.Size() < 100_000, true)
}

func TestGatewaySenderLeaves(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-time.After(500 * time.Millisecond):
		}
		ended <- r.Context().Err()
	}))
	defer back.Close()
	gateway := start(t, secret, "gateway", "-upstream", back.URL)
	request, id := delivery("{}")
	closed, halfClosed := write(t, gateway.addr, request), write(t, gateway.addr, request)
	halfClosed.CloseWrite()
	time.Sleep(200 * time.Millisecond)
	closed.Close()
	waitFor(t, gateway.log, `(?s)(INFO backend responded id=`+id+` status=200\n.*){2}`)
	for range 2 {
		check(t, "the backend's context", <-ended, nil)
	}
	check(t, "half-closed", read(halfClosed), "200 ")
}

// One delivery gets no response, one gets a part.
func TestGatewayBackendHangs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for 30 seconds")
	}
	release := make(chan bool)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == int64(len(`"part"`)) {
			io.WriteString(w, "part")
			w.(http.Flusher).Flush()
		}
		<-release
	}))
	defer back.Close()
	defer close(release)
	gateway := start(t, secret, "gateway", "-upstream", back.URL)
	nothing, _ := delivery("{}")
	part, _ := delivery(`"part"`)
	begin := time.Now()
	for _, conn := range []net.Conn{write(t, gateway.addr, nothing), write(t, gateway.addr, part)} {
		got, after := read(conn), time.Since(begin)
		if got != "502 " || after < 25*time.Second || after > 35*time.Second {
			t.Errorf("got %q after %v, want 502 after 30s", got, after)
		}
	}
}

// Gateway puts the check in front of a backend in any language: it passes Guuru's
// authentic webhooks on to the backend, as they are, and refuses everything else.
//
//	GUURU_SECRET=secr3t go run ./examples/gateway -upstream http://localhost:9000
//
// The backend has to be out of reach for everybody else: let it listen on localhost.
package main

import (
	"bytes"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"example.com/hmacverify/examples/internal/service"
)

func main() {
	addr := flag.String("addr", ":8000", "listen on this `host:port`")
	upstream := flag.String("upstream", "", "pass authentic requests on to this `URL`")
	flag.Parse()

	target, err := url.Parse(*upstream)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		log.Fatalf("-upstream %q is not the URL of an HTTP server", *upstream)
	}
	rc := service.Receiver()
	service.Serve(*addr, rc.Handler(newProxy(target)))
}

// newProxy returns a reverse proxy to target that leaves a request as it came. A target
// that cannot be reached is 502, so that the sender knows to try again.
func newProxy(target *url.URL) http.Handler {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // which would add Accept-Encoding
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target) // the request's path comes after that of target
			r.Out.Host = r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if values, ok := r.In.Header[name]; ok { // Rewrite finds them taken out
					r.Out.Header[name] = values
				}
			}
			// The body is in memory: with GetBody, the transport sends it once more if
			// the backend closes an idle connection just as the request goes out on it.
			if body, err := io.ReadAll(r.In.Body); err == nil {
				r.Out.GetBody = func() (io.ReadCloser, error) {
					return io.NopCloser(bytes.NewReader(body)), nil
				}
				r.Out.Body, _ = r.Out.GetBody()
			}
		},
	}
}

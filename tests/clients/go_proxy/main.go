// Go's net/http ReverseProxy: go_proxy LISTEN UPSTREAM.
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	upstream, err := url.Parse("http://" + os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	log.Fatal(http.ListenAndServe(os.Args[1], proxy))
}

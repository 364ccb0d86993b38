// Go's net/http with a loop of the application. Calls as in calls.py.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

type call struct {
	Name, URL, Path, Key, First string
	Fields                      json.RawMessage
}

type result struct {
	Name        string  `json:"name"`
	Status      int     `json:"status"`
	Disposition string  `json:"disposition"`
	Error       string  `json:"error"`
	Text        string  `json:"text"`
	Seconds     float64 `json:"seconds"`
}

const (
	tries = 4
	// No longer than a till can wait, whatever the answer says.
	longestPause = 2 * time.Second
)

// send makes one try; without a body Go's transport may make another by itself, because the
// request has a key.
func send(client *http.Client, c call, path, key string) (result, *http.Response) {
	request, err := http.NewRequest("POST", c.URL+path, bytes.NewReader(c.Fields))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	answer, err := client.Do(request)
	if err != nil {
		return result{Text: err.Error()}, nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return result{Text: err.Error()}, nil
	}
	return result{
		Status:      answer.StatusCode,
		Disposition: answer.Header.Get("Idempotency-Status"),
		Error:       answer.Header.Get("Idempotency-Error"),
		Text:        string(body),
	}, answer
}

// again says whether another try can change anything: not when the answer is final, nor when nobody
// will know the outcome soon.
func again(r result, answer *http.Response) bool {
	if answer == nil {
		return true
	}
	if r.Disposition == "unknown" {
		return answer.Header.Get("Retry-After") != ""
	}
	var problem struct{ Retryable *bool }
	if json.Unmarshal([]byte(r.Text), &problem) == nil && problem.Retryable != nil {
		return *problem.Retryable
	}
	return r.Status == http.StatusTooManyRequests || r.Status >= 500
}

func pause(try int, answer *http.Response) time.Duration {
	if answer != nil {
		if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil {
			return min(time.Duration(seconds)*time.Second, longestPause)
		}
	}
	return 250 * time.Millisecond << try
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}

func run(c call) result {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
	if c.First != "" {
		send(client, c, c.First, c.Key+"-first")
	}
	start := time.Now()
	var r result
	for try := 0; try < tries; try++ {
		var answer *http.Response
		r, answer = send(client, c, c.Path, c.Key)
		if !again(r, answer) || try+1 == tries {
			break
		}
		time.Sleep(pause(try, answer))
	}
	r.Name, r.Seconds = c.Name, time.Since(start).Seconds()
	return r
}

func main() {
	var group sync.WaitGroup
	var output sync.Mutex
	encoder := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var c call
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		group.Add(1)
		go func() {
			defer group.Done()
			r := run(c)
			output.Lock()
			defer output.Unlock()
			encoder.Encode(r)
		}()
	}
	group.Wait()
}

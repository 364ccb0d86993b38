"""The backend of the tutorial: redeems once more with every call."""

import http.server, json

class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    redeemed = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        Backend.redeemed += 1
        if b"lose" in body:  # executed, and the answer is lost
            self.close_connection = True
            return
        answer = json.dumps({"status": "redeemed", "redemptions": Backend.redeemed}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Backend).serve_forever()

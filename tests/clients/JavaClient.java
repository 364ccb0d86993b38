// Java's HttpClient with the loop of docs/clients.md. Calls as in calls.py.

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.regex.Pattern;

public class JavaClient {
    static HttpResponse<String> send(HttpClient client, URI uri, String body, String saleKey)
            throws InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds(2))
            .header("Content-Type", "application/json").header("Idempotency-Key", saleKey)
            .POST(BodyPublishers.ofString(body)).build();
        for (int attempt = 0; ; attempt++) {
            HttpResponse<String> answer = null;
            try { answer = client.send(request, BodyHandlers.ofString()); } catch (IOException lost) { /* repeat */ }
            boolean again = answer == null || answer.headers().firstValue("Retry-After").isPresent();
            if (!again || attempt == 3) return answer;
            Thread.sleep(250L << attempt);
        }
    }

    // The JDK reads no JSON. No value of a call has an escape in it.
    static String member(String call, String name) {
        var found = Pattern.compile("\"" + name + "\":(\"([^\"]*)\"|\\{[^}]*\\})").matcher(call);
        if (!found.find()) throw new IllegalArgumentException(name + " in " + call);
        return found.group(2) == null ? found.group(1) : found.group(2);
    }

    static String quoted(String text) {
        var quoted = new StringBuilder("\"");
        text.chars().forEach(c -> quoted.append(c < ' ' || c == '"' || c == '\\'
            ? String.format("\\u%04x", c) : String.valueOf((char) c)));
        return quoted.append('"').toString();
    }

    static void one(String call) {
        try {
            // HTTP/1.1 without the offer of an upgrade, as behind TLS with a server that has no other.
            var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
            String url = member(call, "url"), key = member(call, "key"), fields = member(call, "fields");
            if (!member(call, "first").isEmpty()) {
                send(client, URI.create(url + member(call, "first")), fields, key + "-first");
            }
            long start = System.nanoTime();
            var answer = send(client, URI.create(url + member(call, "path")), fields, key);
            double seconds = (System.nanoTime() - start) / 1e9;
            var line = "{\"name\":" + quoted(member(call, "name"))
                + ",\"status\":" + (answer == null ? 0 : answer.statusCode())
                + ",\"disposition\":" + quoted(header(answer, "Idempotency-Status"))
                + ",\"error\":" + quoted(header(answer, "Idempotency-Error"))
                + ",\"text\":" + quoted(answer == null ? "" : answer.body())
                + ",\"seconds\":" + seconds + "}\n";
            synchronized (System.out) { System.out.print(line); System.out.flush(); }
        } catch (InterruptedException | RuntimeException failed) {
            failed.printStackTrace();
            System.exit(1);
        }
    }

    static String header(HttpResponse<String> answer, String name) {
        return answer == null ? "" : answer.headers().firstValue(name).orElse("");
    }

    public static void main(String[] arguments) throws Exception {
        var threads = new java.util.ArrayList<Thread>();
        for (String line : new String(System.in.readAllBytes(), "UTF-8").split("\n")) {
            var thread = new Thread(() -> one(line));
            thread.start();
            threads.add(thread);
        }
        for (var thread : threads) thread.join();
        // Idle threads of a client do not keep the program.
        System.exit(0);
    }
}

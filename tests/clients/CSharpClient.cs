// .NET's HttpClient with the loop of docs/clients.md. Calls as in calls.py.

using System;
using System.Collections.Generic;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading.Tasks;

static class CSharpClient {
    static async Task<HttpResponseMessage> Send(HttpClient client, Uri uri, string body, string saleKey) {
        for (var attempt = 0; ; attempt++) {
            var request = new HttpRequestMessage(HttpMethod.Post, uri);
            request.Content = new StringContent(body, Encoding.UTF8, "application/json");
            request.Headers.Add("Idempotency-Key", saleKey);
            HttpResponseMessage answer = null;
            try { answer = await client.SendAsync(request); }       // client.Timeout = TimeSpan.FromSeconds(2)
            catch (Exception lost) when (lost is HttpRequestException || lost is TaskCanceledException) { }
            if (answer != null && answer.Headers.RetryAfter == null || attempt == 3) return answer;
            await Task.Delay(250 << attempt);
        }
    }

    // No value of a call has an escape in it.
    static string Member(string call, string name) {
        var found = Regex.Match(call, "\"" + name + "\":(?:\"([^\"]*)\"|(\\{[^}]*\\}))");
        if (!found.Success) throw new ArgumentException(name + " in " + call);
        return found.Groups[1].Value + found.Groups[2].Value;
    }

    static string Quoted(string text) {
        var characters = text.Select(c => c < ' ' || c == '"' || c == '\\' ? $"\\u{(int) c:x4}" : c.ToString());
        return "\"" + string.Concat(characters) + "\"";
    }

    static string Header(HttpResponseMessage answer, string name) {
        IEnumerable<string> values = null;
        return answer != null && answer.Headers.TryGetValues(name, out values) ? values.First() : "";
    }

    static async Task One(string call) {
        var client = new HttpClient { Timeout = TimeSpan.FromSeconds(2) };
        string url = Member(call, "url"), key = Member(call, "key"), fields = Member(call, "fields");
        if (Member(call, "first") != "") {
            await Send(client, new Uri(url + Member(call, "first")), fields, key + "-first");
        }
        var watch = System.Diagnostics.Stopwatch.StartNew();
        var answer = await Send(client, new Uri(url + Member(call, "path")), fields, key);
        var seconds = watch.Elapsed.TotalSeconds;
        var text = answer == null ? "" : await answer.Content.ReadAsStringAsync();
        var line = "{\"name\":" + Quoted(Member(call, "name"))
            + ",\"status\":" + (answer == null ? 0 : (int) answer.StatusCode)
            + ",\"disposition\":" + Quoted(Header(answer, "Idempotency-Status"))
            + ",\"error\":" + Quoted(Header(answer, "Idempotency-Error"))
            + ",\"text\":" + Quoted(text)
            + ",\"seconds\":" + seconds.ToString(System.Globalization.CultureInfo.InvariantCulture) + "}";
        lock (Console.Out) { Console.WriteLine(line); }
    }

    static int Main() {
        // By default few connections lead to one server, and the calls would wait for each other.
        ServicePointManager.DefaultConnectionLimit = 100;
        var calls = new List<Task>();
        foreach (var line in Console.In.ReadToEnd().Split('\n').Where(line => line != "")) {
            calls.Add(Task.Run(() => One(line)));
        }
        Task.WaitAll(calls.ToArray());
        return 0;
    }
}

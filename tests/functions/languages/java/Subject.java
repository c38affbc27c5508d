// What a Java program of a function may do: threads that the collector has to stop, garbage from
// all of them, a file, a selector, a child, a recording. It prints what it found, a line each.
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import jdk.jfr.Configuration;
import jdk.jfr.Recording;
import sun.misc.Signal;

public class Subject {
    static volatile boolean stop;

    public static void main(String[] arguments) throws Exception {
        // The recorder's sampler stops threads by signals while all of this runs.
        try (Recording recording = new Recording(Configuration.getConfiguration("profile"))) {
            recording.start();
            say("threads", threads());
            say("garbage", garbage());
            say("file", file());
            say("socket", sockets());
            say("child", child());
            say("signal", signalled());
            recording.stop();
        }
        say("seccomp", seccomp());
        say("unshare", run("", "unshare", "true"));
    }

    static void say(String name, Object what) {
        System.out.println(name + " " + what);
    }

    static int threads() throws Exception {
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            threads.add(new Thread(() -> { while (!stop) { } }));
        }
        for (Thread thread : threads) thread.start();
        int collections = 0;
        for (; collections < 10; collections++) System.gc();
        stop = true;
        for (Thread thread : threads) thread.join();
        return collections;
    }

    static class Node {
        Node left, right;
        byte[] data = new byte[64];

        static Node tree(int depth) {
            Node node = new Node();
            if (depth > 0) {
                node.left = tree(depth - 1);
                node.right = tree(depth - 1);
            }
            return node;
        }

        int count() {
            return 1 + (left == null ? 0 : left.count()) + (right == null ? 0 : right.count());
        }
    }

    // A hundred tasks make trees and drop them, some 60 MB in all.
    static int garbage() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<Integer>> counts = new ArrayList<>();
        for (int i = 0; i < 100; i++) counts.add(pool.submit(() -> Node.tree(11).count()));
        int sum = 0;
        for (Future<Integer> count : counts) sum += count.get();
        pool.shutdown();
        return sum;
    }

    static String file() throws Exception {
        Path directory = Paths.get(System.getenv("TMPDIR"));
        Path path = Files.createTempFile(directory, "java", "");
        Files.write(path, "x".repeat(1 << 20).getBytes());
        Path moved = Files.move(path, directory.resolve(path.getFileName() + ".b"));
        try (FileChannel channel = FileChannel.open(moved)) {
            Files.delete(moved);
            ByteBuffer mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
            return mapped.limit() + " " + (char) mapped.get();
        }
    }

    // Eight clients at once, and a thread that waits for all of them.
    static String sockets() throws Exception {
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), 0));
        int port = listener.socket().getLocalPort();
        Thread server = new Thread(() -> serve(listener));
        server.start();
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<String>> answers = new ArrayList<>();
        for (int i = 0; i < 8; i++) {
            answers.add(pool.submit(() -> {
                try (Socket peer = new Socket("127.0.0.1", port)) {
                    peer.getOutputStream().write("hello".getBytes());
                    return new String(peer.getInputStream().readNBytes(5));
                }
            }));
        }
        StringBuilder all = new StringBuilder();
        for (Future<String> answer : answers) all.append(answer.get());
        pool.shutdown();
        server.join();
        return all.toString();
    }

    static void serve(ServerSocketChannel listener) {
        try (listener; Selector selector = Selector.open()) {
            listener.configureBlocking(false);
            listener.register(selector, SelectionKey.OP_ACCEPT);
            for (int gone = 0; gone < 8;) {
                selector.select();
                for (SelectionKey key : selector.selectedKeys()) {
                    if (key.isAcceptable()) {
                        SocketChannel peer = listener.accept();
                        if (peer == null) continue;
                        peer.configureBlocking(false);
                        peer.register(selector, SelectionKey.OP_READ);
                        continue;
                    }
                    SocketChannel peer = (SocketChannel) key.channel();
                    ByteBuffer heard = ByteBuffer.allocate(5);
                    if (peer.read(heard) < 0) {
                        gone++;
                        peer.close();
                    } else {
                        peer.write(heard.flip());
                    }
                }
                selector.selectedKeys().clear();
            }
        } catch (Exception error) {
            error.printStackTrace();
        }
    }

    static String child() throws Exception {
        return run("said", "sh", "-c", "cat; exit 3");
    }

    // What it says, and its exit code.
    static String run(String input, String... command) throws Exception {
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        process.getOutputStream().write(input.getBytes());
        process.getOutputStream().close();
        String said = new String(process.getInputStream().readAllBytes()).trim();
        return (said + " " + process.waitFor()).trim();
    }

    static String signalled() throws Exception {
        CountDownLatch caught = new CountDownLatch(1);
        Signal.handle(new Signal("TERM"), signal -> caught.countDown());
        Signal.raise(new Signal("TERM"));
        return caught.await(10, TimeUnit.SECONDS) ? "SIGTERM" : "none";
    }

    static String seccomp() throws Exception {
        for (String line : Files.readAllLines(Paths.get("/proc/self/status"))) {
            if (line.startsWith("Seccomp:")) return line.substring(8).trim();
        }
        return "not there";
    }
}

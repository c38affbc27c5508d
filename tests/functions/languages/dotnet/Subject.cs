// What a .NET program of a function may do: threads that nothing but a signal interrupts, garbage
// from all of them, tasks, a file, a socket, a child. It prints what it found, a line each.
using System;
using System.Diagnostics;
using System.IO;
using System.IO.MemoryMappedFiles;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

static class Program
{
    static int Main()
    {
        Say("threads", Suspend());
        Say("garbage", Garbage());
        Say("file", AFile());
        Say("socket", Sockets());
        Say("child", Child());
        Say("signal", Signalled());
        Say("seccomp", Seccomp());
        Say("unshare", Denied());
        return 0;
    }

    static void Say(string name, object what)
    {
        Console.WriteLine(name + " " + what);
    }

    // The loops have no call in them: the collector stops each by a signal to its thread.
    static int Suspend()
    {
        bool stop = false;
        Thread[] threads = new Thread[4];
        for (int i = 0; i < threads.Length; i++)
        {
            threads[i] = new Thread(() => { while (!Volatile.Read(ref stop)) { } });
            threads[i].Start();
        }
        int collections = 0;
        for (; collections < 10; collections++)
            GC.Collect();
        Volatile.Write(ref stop, true);
        foreach (Thread thread in threads)
            thread.Join();
        return collections;
    }

    class Node
    {
        public Node Left, Right;
        public byte[] Data = new byte[64];

        public static Node Tree(int depth)
        {
            Node node = new Node();
            if (depth > 0)
            {
                node.Left = Tree(depth - 1);
                node.Right = Tree(depth - 1);
            }
            return node;
        }

        public int Count()
        {
            return 1 + (Left == null ? 0 : Left.Count()) + (Right == null ? 0 : Right.Count());
        }
    }

    // A hundred tasks make trees and drop them, some 60 MB in all.
    static int Garbage()
    {
        Task<int>[] tasks = new Task<int>[100];
        for (int i = 0; i < tasks.Length; i++)
            tasks[i] = Task.Run(() => Node.Tree(11).Count());
        int sum = 0;
        foreach (int count in Task.WhenAll(tasks).Result)
            sum += count;
        return sum;
    }

    static string AFile()
    {
        string path = Path.Combine(Path.GetTempPath(), "subject");
        File.WriteAllBytes(path, Encoding.UTF8.GetBytes(new string('x', 1 << 20)));
        File.Move(path, path + ".b");
        using (FileStream file = File.OpenRead(path + ".b"))
        using (MemoryMappedFile mapped = MemoryMappedFile.CreateFromFile(
            file, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, true))
        using (MemoryMappedViewStream view = mapped.CreateViewStream(0, 0, MemoryMappedFileAccess.Read))
        {
            File.Delete(path + ".b");
            return file.Length + " " + (char)view.ReadByte();
        }
    }

    // Eight clients at once, on the loop that waits for sockets.
    static string Sockets()
    {
        using (Socket listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp))
        {
            listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            listener.Listen(8);
            string[] heard = new string[8];
            Thread[] threads = new Thread[16];
            for (int i = 0; i < 8; i++)
            {
                int index = i;
                threads[2 * i] = new Thread(() => Echo(listener));
                threads[2 * i + 1] = new Thread(() => heard[index] = Ask(listener.LocalEndPoint));
            }
            foreach (Thread thread in threads)
                thread.Start();
            foreach (Thread thread in threads)
                thread.Join();
            return string.Concat(heard);
        }
    }

    static void Echo(Socket listener)
    {
        byte[] heard = new byte[5];
        using (Socket peer = listener.AcceptAsync(default(CancellationToken)).AsTask().Result)
        {
            int length = peer.ReceiveAsync(new ArraySegment<byte>(heard), SocketFlags.None).Result;
            peer.Send(heard, 0, length, SocketFlags.None);
        }
    }

    static string Ask(EndPoint server)
    {
        byte[] heard = new byte[5];
        using (Socket peer = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp))
        {
            peer.ConnectAsync(server, default(CancellationToken)).AsTask().GetAwaiter().GetResult();
            peer.Send(Encoding.UTF8.GetBytes("hello"), 0, 5, SocketFlags.None);
            int length = peer.ReceiveAsync(new ArraySegment<byte>(heard), SocketFlags.None).Result;
            return Encoding.UTF8.GetString(heard, 0, length);
        }
    }

    static string Child()
    {
        ProcessStartInfo start = new ProcessStartInfo("sh", "-c \"cat; exit 3\"");
        start.RedirectStandardInput = start.RedirectStandardOutput = true;
        using (Process process = Process.Start(start))
        {
            process.StandardInput.Write("said");
            process.StandardInput.Close();
            string said = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return said + " " + process.ExitCode;
        }
    }

    [DllImport("libc")]
    static extern int kill(int pid, int signal);

    [DllImport("libc", SetLastError = true)]
    static extern int unshare(int flags);

    static string Signalled()
    {
        ManualResetEventSlim caught = new ManualResetEventSlim(false);
        using (PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = true;
            caught.Set();
        }))
        {
            kill(Environment.ProcessId, 15);
            return caught.Wait(10000) ? "SIGTERM" : "none";
        }
    }

    static string Seccomp()
    {
        foreach (string line in File.ReadAllLines("/proc/self/status"))
            if (line.StartsWith("Seccomp:"))
                return line.Substring(8).Trim();
        return "not there";
    }

    // Of no namespace: the kernel refuses that to nobody.
    static int Denied()
    {
        return unshare(0) == 0 ? 0 : Marshal.GetLastWin32Error();
    }
}

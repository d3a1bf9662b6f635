/**
 * The command line: every command, option and help text. Nothing else is loaded until a command
 * runs, so that `--help` answers at once. docs/cli.md is made from it.
 */
import { Command, InvalidArgumentError, Option } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import type { CommandEnd, CommandRun } from "./command.ts";
import { EXIT_CODES_IN_WORDS } from "./exit-code.ts";
import { DEFAULT_URL } from "./options.ts";
import type { GlobalOptions } from "./options.ts";
import type { Terminal } from "./terminal.ts";

type Act = (run: CommandRun, ...rest: never[]) => Promise<CommandEnd>;

/** The program; `end` is told each command's exit code. */
export function createProgram(terminal: Terminal, end: (code: CommandEnd) => void): Command {
  const program = new Command("astacus");
  /** Hands a command's arguments and options to its function, loaded now. */
  const act =
    (load: () => Promise<Act>) =>
    async (...given: unknown[]): Promise<void> => {
      const command = given.at(-1) as Command;
      const options: GlobalOptions = command.optsWithGlobals();
      const run = (await load()) as (run: CommandRun, ...rest: unknown[]) => Promise<CommandEnd>;
      end(await run({ terminal, options }, ...given.slice(0, -1)));
    };
  program
    .description("Backs up and restores clustered databases.")
    .version(packageJson.version, "-V, --version", "print the version")
    .option("-u, --url <url>", `the server's address (default: ${DEFAULT_URL})`)
    .option("-c, --config <file>", "the server's configuration file")
    .option("--token-file <file>", "a file that holds the token; ASTACUS_TOKEN goes first")
    .option("--ca-file <file>", "PEM file of the authority of the server's certificate")
    .option("--identity <file>", "opens an encrypted repository; may be repeated", gather)
    .option("--json", "print one JSON document instead of text")
    .option("--no-wait", "return as soon as the operation has begun")
    .addOption(
      new Option("-w, --wait-completion <seconds>", "wait at most so long").argParser(
        positiveNumber,
      ),
    )
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help for a command")
    .addHelpText("after", `\nExit codes:\n${indent(EXIT_CODES_IN_WORDS)}`)
    .showSuggestionAfterError()
    .configureHelp({ showGlobalOptions: true, helpWidth: 100 })
    .configureOutput({
      writeOut: (text) => terminal.print(text.trimEnd()),
      writeErr: (text) => terminal.say(text.trimEnd()),
    })
    .exitOverride();
  addServer(program, act);
  addBackups(program, act);
  addRestore(program, act);
  addMaintenance(program, act);
  addSites(program, act);
  addOperations(program, act);
  addConfiguration(program, act);
  return program;
}

type Acting = (load: () => Promise<Act>) => (...given: unknown[]) => Promise<void>;

function addServer(program: Command, act: Acting): void {
  program
    .command("server")
    .description("run the server of one node (-c FILE); SIGHUP reloads, SIGTERM ends it")
    .option(
      "--node <name>",
      "which node of the file this is; else ASTACUS_NODE, else its host name",
    )
    .action(act(async () => (await import("./command-server.ts")).server));
}

function addBackups(program: Command, act: Acting): void {
  program
    .command("backup")
    .description("back up the whole cluster")
    .option("--name <name>", "a name for it; its time if left out")
    .action(act(async () => (await import("./command-backup.ts")).backup));
  program
    .command("list")
    .description("list backups, with what retention would do (-c FILE: straight from the site)")
    .option("--all", "forgotten ones too")
    .action(act(async () => (await import("./command-list.ts")).list));
  program
    .command("show")
    .argument("<backup>", "name or id")
    .description("show one backup: nodes, volumes, problems (-c FILE: straight from the site)")
    .action(act(async () => (await import("./command-list.ts")).show));
}

function addRestore(program: Command, act: Acting): void {
  program
    .command("restore")
    .description("restore the cluster, some nodes, some files; or files to a folder (--to)")
    .option("--backup <name>", "name or id; the newest complete one if left out")
    .option("--node <from[=to]>", "only this node's share, onto node TO; may be repeated", gather)
    .option(
      "--path <glob>",
      "only files that match; may be repeated; refused if nothing does",
      gather,
    )
    .option("--to <dir>", "into DIR/NODE/VOLUME instead; needs -c FILE and no server")
    .option("--plan", "show what it would do, and do nothing")
    .option("--yes", "do not ask")
    .option("--incomplete", "restore a backup that is marked incomplete")
    .action(act(async () => (await import("./command-restore.ts")).restore));
  program
    .command("export")
    .argument("<backup>", "name or id")
    .description("write files of a backup as a ZIP or tar (-c FILE: straight from the site)")
    .requiredOption("-o, --output <file>", "where to; - for stdout")
    .addOption(
      new Option("--format <format>", "else by the ending of FILE, else zip").choices([
        "zip",
        "tar",
      ]),
    )
    .option("--node <name>", "only this node's share; may be repeated", gather)
    .option(
      "--path <glob>",
      "only files that match; may be repeated; refused if nothing does",
      gather,
    )
    .option("--incomplete", "take a backup that is marked incomplete")
    .action(act(async () => (await import("./command-export.ts")).exportBackup));
}

function addMaintenance(program: Command, act: Acting): void {
  program
    .command("cleanup")
    .description("forget what retention does not keep, and give space back")
    .option("--dry-run", "only say what it would do")
    .option("--sweep", "look for objects that nothing refers to, too (lists the whole site)")
    .option("--minimum-backups <n>", "keep at least so many", wholeNumber)
    .option("--maximum-backups <n>", "keep at most so many", wholeNumber)
    .option("--keep-days <n>", "keep those of the last so many days", wholeNumber)
    .option("--keep-last <n>", "keep the last so many", wholeNumber)
    .option("--hourly <n>", "keep one for each of so many hours", wholeNumber)
    .option("--daily <n>", "keep one for each of so many days", wholeNumber)
    .option("--weekly <n>", "keep one for each of so many weeks", wholeNumber)
    .option("--monthly <n>", "keep one for each of so many months", wholeNumber)
    .option("--yearly <n>", "keep one for each of so many years", wholeNumber)
    .action(act(async () => (await import("./command-maintenance.ts")).cleanup));
  for (const [name, what] of [
    ["delete", "forget backups; undelete brings them back until cleanup has removed their data"],
    ["undelete", "bring forgotten backups back"],
    ["pin", "keep backups whatever retention says"],
    ["unpin", "leave backups to retention again"],
  ] as const) {
    const command = program
      .command(name)
      .argument(name === "delete" ? "[backups...]" : "<backups...>", "names or ids")
      .description(what)
      .option("--reason <text>", "why, for those who come after");
    if (name === "delete") command.option("--backups <names...>", "the same (the original's form)");
    command.action(act(async () => (await import("./command-maintenance.ts")).markCommand(name)));
  }
  program
    .command("verify")
    .argument("[backup]", "name or id; all if left out")
    .description("check that all a backup needs is there (-c FILE: straight from the site)")
    .option("--deep", "read and check every byte, and what the database itself can check")
    .option("--database", "ask the running database instead, after a restore (needs a server)")
    .option("--repair", "repair what is wrong from the other sites (needs a server)")
    .option("--site <site>", "with --repair: the site, in place of the primary")
    .action(act(async () => (await import("./command-verify.ts")).verify));
  program
    .command("scrub")
    .description("show how the rolling verification stands")
    .option("--now", "read every pack once, now, whatever the budget says")
    .option("--site <sites...>", "these sites only")
    .action(act(async () => (await import("./command-scrub.ts")).scrub));
}

function addSites(program: Command, act: Acting): void {
  program
    .command("sync")
    .argument("[sites...]", "which mirrors; all if left out")
    .description("bring mirrors what they lack, and the primary what landed elsewhere")
    .action(act(async () => (await import("./command-sites.ts")).sync));
  program
    .command("migrate")
    .description("move backups to another site and make it the primary, while backups go on")
    .requiredOption("--from <site>", "the site that they are on")
    .requiredOption("--to <site>", "the site that they go to; `astacus site init` makes one")
    .option("--backups <names...>", "only these, names or ids")
    .option("--since <when>", "only those since a date, or of the last e.g. 30d")
    .option("--plan", "show what it would do, and do nothing")
    .option("--yes", "do not ask")
    .option("--undo", "bring back what the first site lacks, and make it the primary again")
    .option("--no-switch", "copy, and leave the primary where it is")
    .action(act(async () => (await import("./command-migrate.ts")).migrate));
}

function addOperations(program: Command, act: Acting): void {
  program
    .command("status")
    .description("show the cluster: nodes, newest complete backup, what runs")
    .action(act(async () => (await import("./command-status.ts")).status));
  program
    .command("cancel")
    .argument("<operation>", "its id, or the first letters")
    .description("stop an operation")
    .action(act(async () => (await import("./command-status.ts")).cancel));
  program
    .command("reload")
    .description(
      "have the server read its configuration again, and wait until its node works with it",
    )
    .action(act(async () => (await import("./command-status.ts")).reload));
  program
    .command("check-reload")
    .description("exit with 1 if the server's file differs from what it has read")
    .option("--status", "say it, too")
    .action(act(async () => (await import("./command-status.ts")).checkReload));
}

function addConfiguration(program: Command, act: Acting): void {
  const config = program.command("config").description("configuration files");
  config
    .command("check")
    .description("check the file (-c FILE), then try what backups and restores will need")
    .option("--node <name>", "as this node; else ASTACUS_NODE, else the host name")
    .action(act(async () => (await import("./command-config.ts")).check));
  config
    .command("convert")
    .argument("<old>", "a file of the original Astacus")
    .description("print it as a file of this one")
    .option("--cluster <name>", "the cluster's name")
    .action(act(async () => (await import("./command-config.ts")).convert));
  addKeys(program, act);
  const site = program.command("site").description("the stores that hold backups");
  site
    .command("init")
    .argument("[site]", "which one; the primary if left out")
    .description(
      "make the repository on a site (-c FILE), once; or its part of it, if others have one",
    )
    .option("--site <name>", "which one; the primary if left out")
    .option("--encrypt", "refuse to make a plain one: the file must have `encryption`")
    .action(act(async () => (await import("./command-site.ts")).init));
  site
    .command("retire")
    .argument("<site>", "which one")
    .description("end a site, when all that it holds is proved to be elsewhere, byte by byte")
    .option("--lost", "it is gone for good: prove nothing, leave it out of the repository's sites")
    .option("--yes", "do not ask")
    .action(act(async () => (await import("./command-migrate.ts")).retire));
  site
    .command("list")
    .description("list the sites: what each is, whether it answers, what mirrors lack")
    .action(act(async () => (await import("./command-sites.ts")).listSites));
  site
    .command("promote")
    .argument("<site>", "a mirror")
    .description("make a mirror the primary when the primary is gone for ever")
    .action(act(async () => (await import("./command-sites.ts")).promote));
  site
    .command("update")
    .description("have the repository take over the retention of sites from the configuration")
    .action(act(async () => (await import("./command-sites.ts")).update));
  site
    .command("check")
    .description("try a site (-c FILE): create, race, read, list, remove")
    .option("--site <name>", "which one; the primary if left out")
    .action(act(async () => (await import("./command-site.ts")).check));
}

function addKeys(program: Command, act: Acting): void {
  const key = program.command("key").description("keys of encrypted repositories");
  key
    .command("generate")
    .argument("<file>", "where to; under the passphrase of ASTACUS_PASSPHRASE, if that is set")
    .description("make an identity, which restores, and show its recipient")
    .action(act(async () => (await import("./command-key.ts")).generate));
  key
    .command("node-init")
    .argument("<file>", "where to; copy it to every node")
    .description("make the node keys of a new repository")
    .action(act(async () => (await import("./command-key.ts")).nodeInit));
  key
    .command("list")
    .description("show the session keys of the repository, and for whom they are (-c FILE)")
    .action(act(async () => (await import("./command-key.ts")).list));
  key
    .command("check")
    .description("say what this machine can do: back up, restore (-c FILE; --identity)")
    .action(act(async () => (await import("./command-key.ts")).check));
  key
    .command("rotate")
    .description("wrap all session keys for the recipients of the file (-c FILE, --identity FILE)")
    .action(act(async () => (await import("./command-key.ts")).rotate));
}

function gather(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

function wholeNumber(text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("It takes a whole number.");
}

function positiveNumber(text: string): number {
  const value = Number(text);
  if (value > 0 && Number.isFinite(value)) return value;
  throw new InvalidArgumentError("It takes a number of seconds above 0.");
}

function indent(text: string): string {
  return text.replaceAll(/^/gm, "  ");
}

/**
 * What an account and a container are set to that matters to backups, for `site check`. Settings
 * that the credentials may not read are warnings, since who backs up need not administrate the
 * account.
 */
import type { SiteFinding } from "./site.ts";

/**
 * What the service says of an account and a container; undefined where it was not asked or denied.
 */
export type AzureSettings = {
  readonly account: { readonly isHierarchicalNamespaceEnabled?: boolean } | undefined;
  readonly container:
    | {
        readonly blobPublicAccess?: string;
        readonly hasImmutabilityPolicy?: boolean;
        readonly hasLegalHold?: boolean;
      }
    | undefined;
};

/** Judges settings. */
export function judgeAzureSettings({ account, container }: AzureSettings): SiteFinding[] {
  return [judgeNamespace(account), ...judgeContainer(container)];
}

function judgeNamespace(account: AzureSettings["account"]): SiteFinding {
  if (account === undefined) {
    return { level: "warning", what: "what kind of account it is may not be read" };
  }
  if (account.isHierarchicalNamespaceEnabled !== true) {
    return { level: "ok", what: "the account has a flat namespace" };
  }
  return {
    level: "bad",
    what: "the account has a hierarchical namespace, which lists in another order",
    guidance: "Use an account without one.",
  };
}

function judgeContainer(container: AzureSettings["container"]): SiteFinding[] {
  if (container === undefined) {
    return [{ level: "warning", what: "the container's settings may not be read" }];
  }
  const { blobPublicAccess, hasImmutabilityPolicy, hasLegalHold } = container;
  const isPublic = blobPublicAccess !== undefined && blobPublicAccess !== "none";
  const findings: SiteFinding[] = [];
  if (isPublic) {
    findings.push({
      level: "bad",
      what: `everybody may read what is in the container (${blobPublicAccess})`,
      guidance: "Switch anonymous access off.",
    });
  }
  if (hasImmutabilityPolicy === true || hasLegalHold === true) {
    const why = hasLegalHold === true ? "legal hold" : "immutability policy";
    findings.push({
      level: "warning",
      what: `the container has a ${why}: cleanups fail until it lets objects go`,
      guidance: "Retention that is longer than the policy's needs no removal before its end.",
    });
  }
  return findings.length > 0
    ? findings
    : [{ level: "ok", what: "the container is private and removes what it is told to" }];
}
